"""Exceptions of any kind are worded as one block."""

import errno

import pytest

from negvision.errors import DatasetError
from negvision.unexpected import describe, image_names, of_sample


class BaseTransform:
    def __call__(self, results):
        return results["mask"]


def raised(call, *args):
    with pytest.raises(Exception) as caught:
        call(*args)
    return caught.value


def broken():
    results = {"img_path": "set/a.jpg", "sample_idx": 0}
    return BaseTransform()(results)


def test_the_step_and_the_sample_are_named():
    error = raised(broken)
    assert describe(error) == "KeyError: 'mask'\n  in: BaseTransform\n  sample: set/a.jpg"
    named = of_sample(error, "sample 3")
    assert str(named) == "set/a.jpg: KeyError: 'mask' in BaseTransform"
    assert isinstance(named, DatasetError) and named.kind == "KeyError in BaseTransform"
    assert str(of_sample(raised(int, "x"), "sample 3")).startswith("sample 3: ValueError: invalid")


def test_an_error_without_a_message_shows_its_line():
    def fail():
        raise AssertionError

    assert describe(raised(fail)) == "AssertionError: raise AssertionError"


def test_user_errors_say_it_themselves():
    assert describe(DatasetError("a.json: empty")) == "DatasetError: a.json: empty"


def test_the_traceback_of_a_worker_is_left_out():
    text = (
        "Caught ValueError in DataLoader worker process 0.\n"
        "Original Traceback (most recent call last):\n  File x, line 1\nValueError: 7 is odd\n"
    )
    assert describe(ValueError(text)) == "ValueError: 7 is odd"


def test_long_messages_are_cut():
    lines = describe(RuntimeError("\n".join(map(str, range(100))))).splitlines()
    assert lines[0] == "RuntimeError: 0" and len(lines) == 13 and lines[-1] == "..."


def test_a_missing_package_is_named_with_its_remedy():
    error = raised(__import__, "no_such_package.part")
    assert "pip install no_such_package" in describe(error)


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (OSError(errno.ESTALE, "Stale file handle", "/mnt/a.jpg"), True),
        (MemoryError(), True),
        (DatasetError("a.jpg: truncated"), True),
        (FileNotFoundError(errno.ENOENT, "No such file", "a.jpg"), False),
        (OSError("cannot identify image file"), False),
        (EOFError(), False),
    ],
)
def test_errors_of_machine_and_user_are_left_to_others(error, kept):
    assert (of_sample(error, "a.jpg") is None) == kept


class Sample:
    def __init__(self, **metainfo):
        self.metainfo = metainfo


def test_images_of_a_batch():
    batch = {"data_samples": [Sample(img_path="a.jpg", img_id=1), Sample(img_id=7), Sample()]}
    assert image_names(batch) == ["a.jpg", "7"]
    assert image_names({"inputs": 3}) == image_names(None) == []

    def step(data_batch):
        raise RuntimeError("sizes differ")

    assert describe(raised(step, batch)).endswith("sample: a.jpg, 7")
