"""Errors of the kit: one clear message each, shown without a traceback on the command line."""


class RobustFlatnessError(Exception):
    """Base of all errors the kit raises on purpose."""


class ConfigError(RobustFlatnessError, ValueError):
    """Input that cannot be used; the message names the field or file, the value and what is allowed."""


class TrainingError(RobustFlatnessError, RuntimeError):
    """A training that cannot go on; the message names the epoch and what was kept."""
