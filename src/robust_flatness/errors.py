"""Errors of the kit: one clear message each, shown without a traceback on the command line."""


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


class MeasurementWarning(UserWarning):
    """Something about the model or the data that makes a number mislead."""
