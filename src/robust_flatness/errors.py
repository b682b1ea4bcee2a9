"""Errors and warnings of the package; the command line shows an error as one message, without a traceback."""

import contextlib
import sys
import warnings
from collections.abc import Iterator


class RobustFlatnessError(Exception):
    """Base class of the errors that this package raises."""


class ConfigError(RobustFlatnessError, ValueError):
    """Invalid settings; the message names the field, the value, and what is allowed."""


class FileError(RobustFlatnessError, ValueError):
    """A file that is missing, damaged, or inconsistent with other files; the message says what to do."""


class OutOfMemoryError(RobustFlatnessError, MemoryError):
    """Insufficient GPU memory; the message says what to try and what is kept."""


class TrainingError(RobustFlatnessError, RuntimeError):
    """A training that cannot continue; the message names the epoch and what is kept."""


class NonFiniteError(ConfigError):
    """NaN or infinite logits or losses; the message names the examples and the stage."""


class UndefinedError(ConfigError):
    """A measure that is not defined for a network; the message says why."""


class MeasurementWarning(UserWarning):
    """A property of the model or the data that makes a result misleading."""


def warn(message: str, callers: int = 1) -> None:
    """Issue a `MeasurementWarning` at the location of the `callers`-th caller of the calling function."""
    warnings.warn(message, MeasurementWarning, stacklevel=callers + 2)


@contextlib.contextmanager
def noted_warnings(show: bool = True) -> Iterator[list[str]]:
    """Collect the messages of `MeasurementWarning`s, each once; print them at the end if `show`."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", MeasurementWarning)
        yield notes
    noted = [w for w in caught if issubclass(w.category, MeasurementWarning)]
    notes[:0] = dict.fromkeys(str(w.message) for w in noted)
    for other in (w for w in caught if w not in noted):
        warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    for note in notes if show else ():
        print(f"warning: {note}", file=sys.stderr)
