import doctest
import importlib
import pkgutil
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import robust_flatness

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = [text for name in ("slurm", "docs", "test") for text in PROJECT["optional-dependencies"][name]]
RANGES = [(Requirement(text), "requirements.lock") for text in PROJECT["dependencies"]]
RANGES += [(Requirement(text), "requirements-dev.lock") for text in [*PROJECT["dependencies"], *EXTRAS]]
#: The packages that run experiments, and those with tests, documentation and Slurm besides.
LOCKS = {name: (ROOT / name).read_text() for name in ("requirements.lock", "requirements-dev.lock")}
LOCKED = {
    name: [Requirement(line.removesuffix(" \\")) for line in lock.splitlines() if not line.startswith(" ")]
    for name, lock in LOCKS.items()
}


def locked(name: str, lock: str = "requirements-dev.lock") -> list[Requirement]:
    return [line for line in LOCKED[lock] if canonicalize_name(line.name) == canonicalize_name(name)]


def test_locked_versions_lie_in_the_ranges():
    for wanted, lock in RANGES:
        pins = locked(wanted.name, lock)
        assert pins, f"{wanted.name} is not in {lock}"
        for pin in pins:
            pinned = next(iter(pin.specifier)).version
            assert wanted.specifier.contains(pinned, prereleases=True), f"{pin} is outside {wanted}"


def test_both_locks_pin_the_same_versions():
    small, large = ({(line.name, str(line.specifier)) for line in lines} for lines in LOCKED.values())
    assert small <= large


def test_locks_name_no_host():
    """An index or a file of one machine would not install on another."""
    for lock in LOCKS.values():
        assert not re.search(r"https?:|file:|git\+|\.\w+/|@|--(?!hash=)", lock)


def test_torch_and_torchvision_are_a_pair():
    """torchvision 0.N goes with torch 2.(N-15): other pairs fail at import."""
    torch, vision = (next(iter(locked(name)[0].specifier)).version for name in ("torch", "torchvision"))
    assert int(vision.split(".")[1]) == int(torch.split(".")[1]) + 15


def test_conda_users_get_the_same_through_pip():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    assert {"pip": ["-r requirements.lock"]} in environment
    # whatever conda itself installs is no package of the lock: it could differ from it
    names = {re.split(r"[ <>=]", item)[0] for item in environment if isinstance(item, str)}
    assert not {name for name in names if locked(name)} - {"pip"}


MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(robust_flatness.__path__, "robust_flatness.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name):
    found = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert found.failed == 0
