"""Command line: one command per step of the workflow, and `measure` for a network of one's own.

Specs are JSON (text or a file), as the workflow hands them over; `robust-flatness spec` prints
them, so that any step can be run by hand:

    robust-flatness train --spec "$(robust-flatness spec train --variant trades-6)" ...
"""

import sys
from contextlib import suppress

# imported in the order in which the help names them
from robust_flatness.commands import experiment, steps, results, own  # isort: skip
from robust_flatness.commands.base import app
from robust_flatness.errors import RobustFlatnessError

__all__ = ["app", "experiment", "main", "own", "results", "steps"]


def main() -> None:
    """Run the command line; known errors end with one message and exit status 1."""
    with suppress(AttributeError):  # a terminal without Unicode shows what it can; a stream may be closed
        sys.stdout.reconfigure(errors="replace")
    try:
        app(prog_name="robust-flatness")
    except (RobustFlatnessError, OSError) as error:  # OSError: a full disk, a folder without permission
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
