"""What produced a result: versions, commit, device. The same for equal runs, so no timings."""

import functools
import importlib.metadata
import platform
import subprocess
from pathlib import Path

from robust_flatness import __version__


@functools.cache
def git_commit() -> str | None:
    """The commit of the repository the package lies in, "-dirty" added where files are changed;
    None for an installed package or without git."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=10,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None


def provenance(device: str, threads: int) -> dict:
    """Package version, commit, torch version, device and threads."""
    name = platform.machine()
    if device.startswith("cuda"):
        import torch

        name = torch.cuda.get_device_name()
    return {
        "robust_flatness": __version__,
        "git_commit": git_commit(),
        "torch": importlib.metadata.version("torch"),
        "device": device,
        "device_name": name,
        "threads": threads,
    }
