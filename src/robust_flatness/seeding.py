"""Independent random streams derived from one seed.

Every random choice of the kit (data split, initialisation, batches of an epoch, starts of an
attack, directions in weight space) has a stream of its own, named by what it is for. A stream
does not depend on how much randomness another one used, so an interrupted training resumes
bit for bit, and two variants are compared under the same batches, starts and directions.
"""

import hashlib


def derive_seed(seed: int, *names: str | int) -> int:
    """A seed in [0, 2^63) for the stream called `names`, e.g. `derive_seed(0, "batches", 17)`."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def stream_device(device) -> str:
    """Where the random numbers of a training on `device` are drawn: there on CUDA, else on the CPU.

    The streams of measures are the CPU's whatever the device, so that all take the same starts and
    directions.
    """
    name = str(device)
    return name if name.startswith("cuda") else "cpu"


def generator(seed: int, *names: str | int, device="cpu"):
    """A `torch.Generator` on `device` seeded with `derive_seed(seed, *names)`."""
    import torch

    return torch.Generator(device=device).manual_seed(derive_seed(seed, *names))
