"""Provenance of a result: versions, commit, device. Equal for equal runs, so without timings."""

import functools
import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path

import torch

from robust_flatness.version import __version__

PACKAGE = Path(__file__).parents[1]


@functools.cache
def git_commit() -> str | None:
    """Return the commit of the repository that the package is run from, with "-dirty" if files changed; None
    if it is not run from a checkout."""
    if not (PACKAGE.parents[1] / ".git").exists():
        return None
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    options = {"cwd": PACKAGE, "capture_output": True, "text": True, "check": True, "timeout": 10}
    try:
        return subprocess.run(command, **options).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


@functools.cache
def package_digest() -> str:
    """Return the SHA-256 of the package's source; interrupted trainings of other versions do not resume."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in sorted(PACKAGE.rglob("*.py")))).hexdigest()


def provenance(device: str, threads: int) -> dict:
    """Return package version, commit, torch version, device and threads."""
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.machine()
    return {
        "robust_flatness": __version__, "torch": importlib.metadata.version("torch"),
        "git_commit": git_commit(), "device": device.partition(":")[0], "device_name": name,
        "threads": threads,
    }  # fmt: skip
