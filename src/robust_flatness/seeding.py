"""Independent random streams derived from one seed.

Every random choice draws from a generator of its own, seeded by its purpose. So interrupted trainings resume
bit for bit, and variants share batches, random starts of attacks and directions in weight space.
"""

import hashlib


def derive_seed(seed: int, *names: str | int) -> int:
    """Return a seed in [0, 2^63) for the stream called `names`, e.g. `derive_seed(0, "batches", 17)`."""
    text = "/".join(str(part) for part in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: str | int, device="cpu"):
    """Return a `torch.Generator` on `device` seeded with `derive_seed(seed, *names)`."""
    import torch

    return torch.Generator(device=device).manual_seed(derive_seed(seed, *names))
