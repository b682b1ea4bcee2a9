"""Independent random streams derived from one seed.

Every random choice (data split, initialisation, batches of an epoch, random starts of an attack, directions
in weight space) draws from a generator of its own, seeded by its purpose. So a stream does not depend on how
much others have drawn: interrupted trainings resume bit for bit, and variants share batches, random starts
and directions.
"""

import hashlib


def derive_seed(seed: int, *names: str | int) -> int:
    """Return a seed in [0, 2^63) for the stream called `names`, e.g. `derive_seed(0, "batches", 17)`."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream_device(device) -> str:
    """Return the device on which a training on `device` draws random numbers: that one if CUDA, else the CPU.

    Measures always draw on the CPU, so that random starts and directions do not depend on the device.
    """
    name = str(device)
    return name if name.startswith("cuda") else "cpu"


def generator(seed: int, *names: str | int, device="cpu"):
    """Return a `torch.Generator` on `device` seeded with `derive_seed(seed, *names)`."""
    import torch

    return torch.Generator(device=device).manual_seed(derive_seed(seed, *names))
