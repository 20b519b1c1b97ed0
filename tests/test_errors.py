import pytest

from negvision.errors import DatasetError, UserError, reports_user_errors


class MarkedElsewhere(ValueError):
    is_user_error = True


def command(error):
    @reports_user_errors
    def main(argv=None):
        if error is not None:
            raise error
        return 0

    return main


@pytest.mark.parametrize("kind", [UserError, MarkedElsewhere, DatasetError])
def test_user_errors_are_one_block_and_status_2(capsys, kind):
    assert command(kind("box 3 is wrong"))([]) == 2
    printed = capsys.readouterr().err
    assert "box 3 is wrong" in printed and "Traceback" not in printed


def test_other_errors_keep_their_traceback():
    assert command(None)([]) == 0
    with pytest.raises(ValueError, match="ours"):
        command(ValueError("ours"))([])
