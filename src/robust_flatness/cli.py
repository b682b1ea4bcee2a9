"""Command line: `measure` for any network, commands for experiments, one command per step of the workflow.

Settings of a step are JSON; `robust-flatness spec` prints them, so that a step can be run by hand:

    robust-flatness train --spec "$(robust-flatness spec train --variant trades-6)" ...
"""

import sys

# imported in the order of the help
from robust_flatness.commands import own, experiments, steps  # noqa: F401  # isort: skip
from robust_flatness.commands.base import app
from robust_flatness.errors import RobustFlatnessError


def main() -> None:
    """Run the command line; known errors end with one message and exit status 1."""
    sys.stdout.reconfigure(errors="replace")
    try:
        app(prog_name="robust-flatness")
    except (RobustFlatnessError, OSError) as error:  # OSError: a full disk, a folder without permission
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
