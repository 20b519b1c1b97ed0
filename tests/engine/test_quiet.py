import logging
import warnings

from mmengine.hooks import logger_hook
from mmengine.logging import MMLogger, print_log

from negvision.compat.patches import captured_pycocotools
from negvision.engine import progress_hook
from negvision.engine.quiet import (
    muted_console,
    replace_console_handler,
    silence_idle_warnings,
)


def record(path, message, level=logging.INFO):
    return logging.LogRecord("mmengine", level, path, 1, message, (), None)


def test_console_shows_warnings_progress_and_negvision_only(tmp_path, capsys):
    file = tmp_path / "run.log"
    logger = MMLogger("test_quiet", log_file=str(file))
    replace_console_handler(logger)
    # A clone named like the package may hold its dependencies too.
    other = "/home/me/negvision/.venv/lib/python3.11/site-packages/mmengine/runner/runner.py"
    logger.handle(record(other, "System environment: wall"))
    logger.handle(record(other, "something odd", logging.WARNING))
    frozen = "backbone.conv1.weight is skipped since its requires_grad=False"
    logger.handle(record(other, frozen, logging.WARNING))
    logger.handle(record(logger_hook.__file__, "Epoch(train) [1][5/10]"))
    logger.handle(record(logger_hook.__file__, "Exp name: a_b"))
    logger.handle(record(progress_hook.__file__, "epoch 1/2"))
    shown = capsys.readouterr().out.splitlines()
    assert shown == ["warning: something odd", "Epoch(train) [1][5/10]", "epoch 1/2"]
    logged = file.read_text()
    for text in ("System environment: wall", "Exp name: a_b", "epoch 1/2"):
        assert text in logged


def test_print_log_is_shown_except_for_known_noise(capsys):
    logger = MMLogger("test_quiet_print_log")
    replace_console_handler(logger)
    print_log("table", logger)
    print_log("paramwise_options -- neck.conv.bias:weight_decay=0.0", logger)
    print_log("Loads checkpoint by local backend from path: a.pth", logger)
    assert capsys.readouterr().out == "table\n"


def test_muted_console_leaves_the_file(tmp_path, capsys):
    logger = MMLogger("test_quiet_muted", log_file=str(tmp_path / "a.log"))
    replace_console_handler(logger)
    with muted_console(logger):
        logger.handle(record(progress_hook.__file__, "hidden"))
    logger.handle(record(progress_hook.__file__, "seen"))
    assert capsys.readouterr().out == "seen\n"
    assert "hidden" in (tmp_path / "a.log").read_text()


def test_pycocotools_is_quiet_inside_only(capsys):
    from pycocotools.coco import COCO

    with captured_pycocotools():
        coco = COCO()
        coco.dataset = {"images": [], "annotations": [], "categories": []}
        coco.createIndex()
    assert capsys.readouterr().out == ""
    coco.createIndex()
    assert "index created" in capsys.readouterr().out


def test_only_known_warnings_are_silenced():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        silence_idle_warnings()
        warnings.warn("torch.meshgrid: in an upcoming release", UserWarning, stacklevel=1)
        warnings.warn("`num_anchors` is deprecated, for consistency", UserWarning, stacklevel=1)
        warnings.warn("your annotations have no boxes", UserWarning, stacklevel=1)
    assert [str(w.message) for w in seen] == ["your annotations have no boxes"]
