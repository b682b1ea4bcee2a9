"""Provenance of a result: versions, commit, device. Equal for equal runs, so without timings."""

import functools
import hashlib
import importlib.metadata
import platform
import subprocess
from pathlib import Path

from robust_flatness.version import __version__

PACKAGE = Path(__file__).parents[1]


@functools.cache
def git_commit() -> str | None:
    """Return the commit of the package's repository, with "-dirty" if files changed, or None."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    options = {"cwd": PACKAGE, "capture_output": True, "text": True, "check": True, "timeout": 10}
    try:
        described = subprocess.run(command, **options)
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


@functools.cache
def package_digest() -> str:
    """Return the SHA-256 of the package's source; interrupted trainings of other versions do not resume."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def provenance(device: str, threads: int) -> dict:
    """Return package version, commit, torch version, device and threads."""
    name = platform.machine()
    if device.startswith("cuda"):
        import torch

        name = torch.cuda.get_device_name(device)
    versions = {"robust_flatness": __version__, "torch": importlib.metadata.version("torch")}
    machine = {"device": device.partition(":")[0], "device_name": name, "threads": threads}
    return versions | {"git_commit": git_commit()} | machine
