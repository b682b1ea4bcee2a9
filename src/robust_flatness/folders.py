"""Locations of the repository and of the folder with results."""

from pathlib import Path

from robust_flatness.errors import FileError


def repository() -> Path:
    """Return the repository's root: the working directory or the nearest of its parents with
    `config/variants.yaml`, or the checkout that this package was installed from."""
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[2]):
        if (folder / "config" / "variants.yaml").is_file():
            return folder
    raise FileError(f"{here}: not inside a checkout of this repository (no config/variants.yaml found)")


def workspace() -> Path:
    """Return the working directory or the nearest of its parents with `results/` or `config/`; a notebook
    runs in its own folder."""
    for folder in (Path.cwd(), *Path.cwd().parents):
        if (folder / "results").is_dir() or (folder / "config" / "variants.yaml").is_file():
            return folder
    return Path.cwd()
