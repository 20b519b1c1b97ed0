"""Keep the console for what a person reads; everything goes to the log file all the same."""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

import negvision

# With the separator behind it: a clone may have the package's name, and others below it in .venv.
_OURS = os.path.join(Path(negvision.__file__).parent, "")
# Where an INFO record must come from to reach the console. All of mmengine's start-up (the
# environment, the config, hooks, initialisation) comes from elsewhere.
_SHOWN_ORIGINS = tuple(
    part.replace("/", os.sep)
    for part in (
        "/mmengine/hooks/logger_hook.py",
        "/mmdet/evaluation/",
        "/mmengine/evaluator/",
    )
)
_HIDDEN_STARTS = (
    "Exp name:",  # the work dir in the header says the same
    "Evaluating bbox...",  # the table that follows says so
)

# Warnings of the packages below that a user can do nothing about, (message pattern, category).
_IDLE_WARNINGS = [
    # mmdet's samplers and torch's own schedulers still use the old calls.
    (r".*torch\.meshgrid.*", UserWarning),
    (r".*lr_scheduler\.step\(\).*", UserWarning),
    # mmdet's own ATSS head uses a property that mmdet has deprecated.
    (r".*`num_anchors` is deprecated.*", UserWarning),
    # mmseg's losses say what their default is whenever it is used.
    (r".*avg_non_ignore.*", UserWarning),
    # mmengine calls the old names of torch.cuda.amp and autocast.
    (r".*torch\.(cuda|cpu)\.amp\..* is deprecated.*", FutureWarning),
    # A machine without a GPU is told so by the header.
    (r".*pin_memory.*no accelerator.*", UserWarning),
    (r".*CUDA initialization.*", UserWarning),
    # mmengine reads versions with pkg_resources.
    (r".*pkg_resources.*", UserWarning),
]
_IDLE_LOG_STARTS = (
    # mmengine's own checkpoint hook asks for classes that mmengine has deprecated.
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
    # Resuming compares pickles byte by byte: equal metainfo loaded from a file differs often.
    "The dataset metainfo from the resumed checkpoint is different",
)

_PYCOCOTOOLS_STEPS = (
    "loading annotations into memory",
    "creating index",
    "index created",
    "Loading and preparing results",
    "DONE",
    "Done",
    "Running per image evaluation",
    "Evaluate annotation type",
    "Accumulating evaluation results",
)


class ConsoleHandler(logging.Handler):
    """Print records to the current stdout, above any progress bar that is being drawn."""

    def __init__(self, level: int = logging.INFO):
        super().__init__(level)
        self.addFilter(is_for_console)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
            if record.levelno >= logging.WARNING:
                text = f"{record.levelname.lower()}: {text}"
            tqdm.write(text, file=sys.stdout)
            sys.stdout.flush()
        except Exception:
            self.handleError(record)


def is_for_console(record: logging.LogRecord) -> bool:
    """Warnings always; INFO from the progress hook, from negvision and from the evaluation."""
    message = record.getMessage()
    if record.levelno >= logging.WARNING:
        return not message.startswith(_IDLE_LOG_STARTS)
    if message.startswith(_HIDDEN_STARTS):
        return False
    origin = _origin(record)
    return origin.startswith(_OURS) or any(part in origin for part in _SHOWN_ORIGINS)


def _origin(record: logging.LogRecord) -> str:
    """The file whose code logged ``record``, also where it did so through ``print_log``."""
    if not record.pathname.endswith(os.path.join("mmengine", "logging", "logger.py")):
        return record.pathname
    frame = sys._getframe()
    while frame is not None and frame.f_code.co_filename != record.pathname:
        frame = frame.f_back
    while frame is not None and frame.f_code.co_filename in (record.pathname, logging.__file__):
        frame = frame.f_back
    return frame.f_code.co_filename if frame is not None else record.pathname


def replace_console_handler(logger: logging.Logger) -> None:
    """Put a :class:`ConsoleHandler` in the place of the stream handler; file handlers stay."""
    for handler in list(logger.handlers):
        if type(handler) is logging.StreamHandler:
            logger.handlers.remove(handler)
            logger.handlers.append(ConsoleHandler(handler.level))


@contextlib.contextmanager
def muted_console(logger: logging.Logger) -> Iterator[None]:
    """What is logged inside of the block goes to the log file alone."""
    handlers = [handler for handler in logger.handlers if isinstance(handler, ConsoleHandler)]
    levels = [handler.level for handler in handlers]
    for handler in handlers:
        handler.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for handler, level in zip(handlers, levels, strict=True):
            handler.setLevel(level)


def silence_idle_warnings() -> None:
    """Ignore the warnings of other packages that a user cannot act upon."""
    for message, category in _IDLE_WARNINGS:
        warnings.filterwarnings("ignore", message=message, category=category)


@contextlib.contextmanager
def log_of_reading_hidden() -> Iterator[None]:
    """Hide what mmengine logs while it reads a config: the environment variables it replaced."""
    before = logging.root.manager.disable
    logging.disable(logging.INFO)
    try:
        yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def captured_pycocotools() -> Iterator[None]:
    """Hide what pycocotools prints about its own steps inside of the block; results stay."""
    from pycocotools import coco, cocoeval

    def print_results(*args, **kwargs):
        if not str(args[0] if args else "").startswith(_PYCOCOTOOLS_STEPS):
            print(*args, **kwargs)

    # A module's own `print` comes before the built-in one.
    coco.print = cocoeval.print = print_results
    try:
        yield
    finally:
        del coco.print, cocoeval.print


@contextlib.contextmanager
def muted(*names: str) -> Iterator[None]:
    """Inside, the loggers of these names tell of errors alone, and nothing warns."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
