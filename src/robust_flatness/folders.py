"""Where things lie: the repository, and the folder that holds results."""

from pathlib import Path

from robust_flatness.errors import FileError


def repository() -> Path:
    """The repository's root: the nearest folder from here upwards with `config/variants.yaml`, or
    the checkout this package was installed from.

    Raises
    ------
    FileError
        If there is neither.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[2]):
        if (folder / "config" / "variants.yaml").is_file():
            return folder
    raise FileError(f"{here}: not inside a checkout of this repository (no config/variants.yaml found)")


def workspace() -> Path:
    """The nearest folder from here upwards with `results/` or `config/`: a notebook runs in its own
    folder."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "results").is_dir() or (folder / "config" / "variants.yaml").is_file():
            return folder
    return here
