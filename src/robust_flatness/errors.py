"""Errors of the kit: one clear message each, shown without a traceback on the command line."""

import contextlib
import sys
import warnings
from collections.abc import Iterator


class RobustFlatnessError(Exception):
    """Base of all errors the kit raises on purpose."""


class ConfigError(RobustFlatnessError, ValueError):
    """Settings that cannot be used; the message names the field, the value and what is allowed."""


class FileError(RobustFlatnessError, ValueError):
    """A file that cannot be used: missing, damaged, or not of the others it is used with. The message names
    the file, what is wrong with it, and what to do."""


class OutOfMemoryError(RobustFlatnessError, MemoryError):
    """A GPU's memory does not suffice; the message says what to try and what was kept."""


class TrainingError(RobustFlatnessError, RuntimeError):
    """A training that cannot go on; the message names the epoch and what was kept."""


class NonFiniteError(ConfigError):
    """A network that gives NaN or infinite logits; the message names the examples and where."""


class UndefinedError(ConfigError):
    """A measure that is not defined for a network; the message says why."""


class MeasurementWarning(UserWarning):
    """Something about the model or the data that makes a number mislead."""


def warn(message: str, callers: int = 1) -> None:
    """Warn of what makes a number mislead, from the place of the caller, or of its `callers`-th caller."""
    warnings.warn(message, MeasurementWarning, stacklevel=callers + 2)


@contextlib.contextmanager
def noted_warnings(show: bool = True) -> Iterator[list[str]]:
    """Collect what warns of misleading numbers, each message once; at the end it is shown, too, unless
    `show` is false."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MeasurementWarning)
        try:
            yield notes
        finally:
            of_measures = [str(w.message) for w in caught if issubclass(w.category, MeasurementWarning)]
            notes[:0] = dict.fromkeys(of_measures)
    for warning in caught:
        if not issubclass(warning.category, MeasurementWarning):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    for note in notes if show else ():
        print(f"warning: {note}", file=sys.stderr)
