"""Device and precision of a job, chosen at its start from what the machine supports."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from robust_flatness.config.values import Device, Spec, parse
from robust_flatness.errors import ConfigError, OutOfMemoryError

#: Locks of the GPUs that this process uses, held until it ends.
_taken: list[FileLock] = []


def start(device: str, threads: int) -> str:
    """Set torch's threads and arithmetic, and return the name of the device to use. `auto` is a GPU if there
    is one (cuda, then mps), else the CPU. `cuda` is the first GPU that no other job of this package uses, or
    the first. On GPUs, TF32 is off and convolutions are deterministic."""
    torch.set_num_threads(threads)
    keep_freed_memory()
    parse(Device, device, "--device")
    kind, _, number = device.partition(":")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if kind == "auto":
        kind = next(name for name, there in available.items() if there)
    if not available[kind]:
        raise ConfigError(f"--device: {device} given, but torch sees no such device here; use cpu or auto")
    if kind != "cuda":
        return kind
    count = torch.cuda.device_count()
    if number and int(number) >= count:
        raise ConfigError(f"--device: {device} given, but torch sees {count} GPUs here, counted from 0")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else sums may differ between runs
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    index = int(number) if number else free_gpu(count)
    torch.cuda.set_device(index)
    return f"cuda:{index}"


def keep_freed_memory() -> None:
    """Make glibc keep up to 64 MB of freed memory: new pages may take up to half of a network's run time.
    Freeing one large block, never touched, raises the limit (`man mallopt`, M_MMAP_THRESHOLD)."""
    torch.empty(31 * 2**20, dtype=torch.uint8)


def free_gpu(count: int) -> int:
    """Lock the first of `count` GPUs that no other process has locked; return its index, or 0 if all are."""
    for index in range(count):
        # indices depend on CUDA_VISIBLE_DEVICES
        name = torch.cuda.get_device_properties(index).uuid
        lock = FileLock(Path(tempfile.gettempdir(), f"robust-flatness-{os.getuid()}-{name}.lock"))
        with contextlib.suppress(Timeout, OSError):
            lock.acquire(timeout=0)
            _taken.append(lock)
            return index
    return 0


def auto_precision(device: str) -> str:
    """Return bfloat16 on recent GPUs, and CPUs with AMX or AVX512-BF16, where it is fast, else float32."""
    kind = torch.device(device).type
    if kind == "cuda":
        fast = torch.cuda.get_device_capability(device) >= (8, 0)
    else:
        supported = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
        fast = kind == "cpu" and supported
    return "bfloat16" if fast else "float32"


def with_precision_on(device: str, spec: Spec) -> Any:
    """Return the spec with `precision: auto` replaced by the precision on `device`."""
    if getattr(spec, "precision", None) != "auto":
        return spec
    return spec.model_copy(update={"precision": auto_precision(device)})


@contextlib.contextmanager
def out_of_memory(batch_size: int, kept: str) -> Iterator[None]:
    """Convert torch's error to an OutOfMemoryError that says what to try, followed by `kept`."""
    try:
        yield
    except torch.OutOfMemoryError:
        smaller = f"try a batch_size of {max(1, batch_size // 2)}"
        text = f"the GPU's memory does not suffice for batches of {batch_size}; {smaller}. {kept}"
        raise OutOfMemoryError(text) from None
