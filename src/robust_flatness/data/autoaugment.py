"""AutoAugment's CIFAR-10 policy (Cubuk et al., CVPR 2019) on batches of images.

An operation takes images [n, 3, H, W] of integral levels 0 .. 255, as floats, its magnitude, and the levels
of empty corners, and returns such images. Operations are torchvision's, but for those that round: they return
torchvision's results up to one level, and run on batches of floats.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import AutoAugment, AutoAugmentPolicy
from torchvision.transforms.v2 import functional as TF

from robust_flatness.errors import ConfigError

LEVELS, BINS = 255.0, 10
#: Weights of red, green and blue in the grey image.
GREY = (0.2989, 0.587, 0.114)
#: The 25 pairs of (operation, probability, level).
POLICY = tuple(AutoAugment(AutoAugmentPolicy.CIFAR10).policies)


def autoaugment(x: Tensor, generator: torch.Generator, fill: Sequence[float]) -> Tensor:
    """Apply a random pair of the policy to each image, in 256 levels. Corners left empty take the channel
    values `fill`. Grey images are repeated to three channels and averaged afterwards."""
    channels = x.shape[1]
    if channels not in (1, 3):
        raise ConfigError(f"AutoAugment requires images of 1 or 3 channels; these have {channels}")
    filled = (x.new_tensor(fill) * LEVELS).round().expand(3).tolist()
    levels = (x * LEVELS).round().expand(-1, 3, -1, -1)
    images = apply_policy(levels, filled, generator) / LEVELS
    return images if channels == 3 else images.mean(1, keepdim=True)


def apply_policy(x: Tensor, fill: list[float], generator: torch.Generator) -> Tensor:
    """Apply a random pair of operations of the policy to each image, in batches of images with the same
    operation."""
    count, device = len(x), generator.device
    pairs = torch.randint(len(POLICY), (count,), device=device, generator=generator)
    chances = torch.rand(2, count, device=device, generator=generator)
    signs = torch.randint(2, (2, count), device=device, generator=generator)
    # one transfer: images are grouped by operation on the CPU
    pairs, chances, signs = pairs.tolist(), chances.tolist(), signs.tolist()
    for place in range(2):
        taken: dict[tuple[str, float], list[int]] = {}
        for image in range(count):
            name, probability, level = POLICY[pairs[image]][place]
            if chances[place][image] <= probability:
                side = x.shape[3] if name == "TranslateX" else x.shape[2]
                magnitude = magnitude_of(name, level or 0, 2 * signs[place][image] - 1, side)
                taken.setdefault((name, magnitude), []).append(image)
        changed = x.clone()
        for (name, magnitude), images in taken.items():
            index = torch.tensor(images, device=x.device)
            changed[index] = OPERATIONS[name](x[index], magnitude, fill)
        x = changed
    return x


def moved(x: Tensor, fill: list[float], translate=(0, 0), shear: float = 0.0, center=None) -> Tensor:
    """Shift by whole pixels, or shear vertically by an angle in degrees."""
    where = {"translate": list(translate), "shear": [0.0, shear], "center": center}
    return TF.affine(x, angle=0.0, scale=1.0, fill=fill, **where)


def blended(x: Tensor, magnitude: float, other: Tensor) -> Tensor:
    """Return (1 + magnitude) x - magnitude other, clamped to 0 .. 255 and rounded down."""
    ratio = 1 + x.new_tensor(magnitude)
    return (ratio * x + (1 - ratio) * other).clamp(0, LEVELS).floor()


def grey(x: Tensor) -> Tensor:
    """Return the grey image [n, 1, H, W], rounded down."""
    red, green, blue = x.unbind(1)
    return (GREY[0] * red + GREY[1] * green + GREY[2] * blue).floor()[:, None]


def smoothed(x: Tensor) -> Tensor:
    """Return `x` filtered by (1 1 1, 1 5 1, 1 1 1) / 13, except at the border."""
    kernel = x.new_ones(3, 3)
    kernel[1, 1] = 5
    inner, other = F.conv2d(x.flatten(0, 1)[:, None], kernel[None, None] / 13), x.clone()
    other[..., 1:-1, 1:-1] = inner.round().view_as(other[..., 1:-1, 1:-1])
    return other


def autocontrast(x: Tensor) -> Tensor:
    """Stretch each channel to 0 .. 255; a channel of one level stays."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    stretched = ((x - low) * (LEVELS / (high - low))).clamp(0, LEVELS).floor()
    return torch.where(high > low, stretched, x)


OPERATIONS: dict[str, Callable[[Tensor, float, list[float]], Tensor]] = {
    "ShearY": lambda x, m, fill: moved(x, fill, shear=math.degrees(math.atan(m)), center=[0.0, 0.0]),
    "TranslateX": lambda x, m, fill: moved(x, fill, (int(m), 0)),
    "TranslateY": lambda x, m, fill: moved(x, fill, (0, int(m))),
    "Rotate": lambda x, m, fill: TF.rotate(x, m, fill=fill),
    "Brightness": lambda x, m, fill: blended(x, m, torch.zeros_like(x)),
    "Color": lambda x, m, fill: blended(x, m, grey(x)),
    "Contrast": lambda x, m, fill: blended(x, m, grey(x).mean((1, 2, 3), keepdim=True)),
    "Sharpness": lambda x, m, fill: blended(x, m, smoothed(x)),
    "Posterize": lambda x, m, fill: TF.posterize(x.byte(), int(m)).to(x.dtype),
    "Solarize": lambda x, m, fill: torch.where(x >= m, LEVELS - x, x),
    "Invert": lambda x, m, fill: LEVELS - x,
    "AutoContrast": lambda x, m, fill: autocontrast(x),
    "Equalize": lambda x, m, fill: TF.equalize(x.byte()).to(x.dtype),
}
#: Largest magnitude of operations with a random sign; blends have the factor 1 + magnitude.
SIGNED = {"ShearY": 0.3, "Rotate": 30.0, "Brightness": 0.9, "Color": 0.9, "Contrast": 0.9, "Sharpness": 0.9}
#: Largest shift as a share of the image's side.
SHIFT = 150 / 331


def magnitude_of(name: str, level: int, sign: int, side: int) -> float:
    """Return the magnitude of an operation at `level` 0 .. 9 of strength, for images of `side` pixels."""
    part = level / (BINS - 1)
    if name.startswith("Translate"):
        return sign * part * SHIFT * side
    if name == "Posterize":
        return 8 - round(4 * part)
    return LEVELS * (1 - part) if name == "Solarize" else sign * part * SIGNED.get(name, 0.0)
