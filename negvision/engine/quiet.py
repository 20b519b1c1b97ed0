"""Keep the console for what a person reads; the log file gets everything.

MMEngine sends all records through one logger, so the console's filter tells them apart by the file
that logged them (``LogRecord.pathname``).
"""

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

from mmengine.logging import MMLogger
from tqdm import tqdm

import negvision

# INFO records of these files reach the console. With the separator: dependencies may be installed
# below a clone of this name. The last file is print_log's, which the evaluations of mmdet and mmseg
# use for their tables.
_OURS = os.path.join(Path(negvision.__file__).parent, "")
_SHOWN_FILES = tuple(
    part.replace("/", os.sep)
    for part in (
        "/mmengine/hooks/early_stopping_hook.py",
        "/mmengine/hooks/logger_hook.py",
        "/mmdet/evaluation/",
        "/mmengine/evaluator/",
        "/mmengine/logging/logger.py",
    )
)
_HIDDEN_STARTS = (
    "Exp name:",  # as in the work dir of the header
    "Evaluating bbox...",  # the table that follows shows it
    "paramwise_options",  # a line for every parameter
    "load model from:",
    "Loads checkpoint by",
    "Advance dataloader",
)
_IDLE_LOG_STARTS = (
    # mmengine's own checkpoint hook asks for classes that mmengine has deprecated.
    '"FileClient" will be deprecated',
    '"HardDiskBackend" is the alias',
    # Resuming compares pickles byte by byte: equal metainfo loaded from a file often differs.
    "The dataset metainfo from the resumed checkpoint is different",
)
# mmengine warns about every frozen weight if the config has a paramwise_cfg.
_OF_FROZEN_WEIGHT = " is skipped since its requires_grad="
# Warnings of other packages that a user can do nothing about: (message pattern, category).
_IDLE_WARNINGS = [
    # mmdet's samplers and torch's own schedulers still use the old calls.
    (r".*torch\.meshgrid.*", UserWarning),
    (r".*lr_scheduler\.step\(\).*", UserWarning),
    # mmdet's own ATSS head uses a property that mmdet has deprecated.
    (r".*`num_anchors` is deprecated.*", UserWarning),
    # mmseg's losses warn about their default whenever it is used.
    (r".*avg_non_ignore.*", UserWarning),
    # mmengine calls the old names of torch.cuda.amp and autocast.
    (r".*torch\.(cuda|cpu)\.amp\..* is deprecated.*", FutureWarning),
    # The header of a run shows that there is no GPU.
    (r".*pin_memory.*no accelerator.*", UserWarning),
    (r".*CUDA initialization.*", UserWarning),
    # mmengine reads versions with pkg_resources.
    (r".*pkg_resources.*", UserWarning),
]


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
    """Warnings, and INFO of negvision, of the progress hook and of evaluations."""
    message = record.getMessage()
    if record.levelno >= logging.WARNING:
        return not (message.startswith(_IDLE_LOG_STARTS) or _OF_FROZEN_WEIGHT in message)
    if message.startswith(_HIDDEN_STARTS):
        return False
    path = record.pathname
    return path.startswith(_OURS) or any(part in path for part in _SHOWN_FILES)


def replace_console_handler(logger: logging.Logger) -> None:
    """Replace the stream handler by a :class:`ConsoleHandler`; file handlers stay."""
    for handler in list(logger.handlers):
        if type(handler) is logging.StreamHandler:
            logger.handlers.remove(handler)
            logger.handlers.append(ConsoleHandler(handler.level))


def log_to_file(text: str) -> str | None:
    """Write ``text`` to the log file of the current run; its path, or None if there is none."""
    for handler in MMLogger.get_current_instance().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.emit(logging.LogRecord("mmengine", logging.ERROR, "", 0, text, None, None))
            return handler.baseFilename
    return None


@contextlib.contextmanager
def muted_console(logger: logging.Logger) -> Iterator[None]:
    """Inside the block, records go to the log file only."""
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
def muted(*names: str) -> Iterator[None]:
    """Inside the block, the loggers of these names report errors only, and nothing warns."""
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
