"""AutoAugment's CIFAR-10 policy (Cubuk et al., CVPR 2019) on batches of images, on any device.

Images are float tensors [n, 3, H, W] of integral levels 0 .. 255. Each operation takes a magnitude [n] and
returns the result of torchvision's operation of that name on uint8 tensors.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

LEVELS = 255.0
BINS = 10
#: Weights of red, green and blue in the grey image.
GREY = (0.2989, 0.587, 0.114)
Operation = Callable[[Tensor, Tensor, Tensor], Tensor]


def moved(kind: str, x: Tensor, magnitude: Tensor, fill: Tensor) -> Tensor:
    """Shear, shift (by whole pixels, towards zero), or rotate (by degrees, counter-clockwise) each image.
    Each pixel takes the nearest neighbour of its source, or `fill` outside the image. Rows and columns, [H,
    W, n], are relative to the image's centre."""
    count, channels, height, width = x.shape
    row = torch.arange(height, device=x.device, dtype=x.dtype)[:, None, None] + (0.5 - height / 2)
    column = torch.arange(width, device=x.device, dtype=x.dtype)[None, :, None] + (0.5 - width / 2)
    if kind == "ShearX":
        column = column + magnitude * (row + height / 2)
    elif kind == "ShearY":
        row = row + magnitude * (column + width / 2)
    elif kind == "TranslateX":
        column = column - magnitude.trunc()
    elif kind == "TranslateY":
        row = row - magnitude.trunc()
    else:
        angle = torch.deg2rad(magnitude)
        cos, sin = angle.cos(), angle.sin()
        row, column = sin * column + cos * row, cos * column - sin * row
    source = (column / (width / 2), row / (height / 2))
    grid = torch.stack([part.expand(height, width, count) for part in source], dim=-1)
    known = torch.cat([x, torch.ones_like(x[:, :1])], dim=1)
    result = F.grid_sample(known, grid.permute(2, 0, 1, 3), mode="nearest", align_corners=False)
    return torch.where(result[:, channels:] < 0.5, fill[:, None, None], result[:, :channels])


def blended(kind: str, x: Tensor, magnitude: Tensor, fill: Tensor) -> Tensor:
    """Return (1 + magnitude) x - magnitude other, clamped to 0 .. 255 and rounded down. The other image is
    black (brightness), the grey image (color), its mean (contrast), or the image smoothed by (1 1 1, 1 5 1, 1
    1 1) / 13 except at the border (sharpness)."""
    red, green, blue = x.unbind(1)
    grey = (GREY[0] * red + GREY[1] * green + GREY[2] * blue).floor()[:, None]
    if kind == "Brightness":
        other = torch.zeros_like(x)
    elif kind == "Color":
        other = grey
    elif kind == "Contrast":
        other = grey.mean(dim=(1, 2, 3), keepdim=True)
    elif min(x.shape[2:]) > 2:
        kernel = x.new_ones(3, 3)
        kernel[1, 1] = 5
        smooth = F.conv2d(x.flatten(0, 1)[:, None], kernel[None, None] / 13)
        other = x.clone()
        other[..., 1:-1, 1:-1] = smooth.round().view_as(other[..., 1:-1, 1:-1])
    else:
        return x
    ratio = 1 + magnitude[:, None, None, None]
    return (ratio * x + (1 - ratio) * other).clamp(0, LEVELS).floor()


def posterize(x: Tensor, magnitude: Tensor, fill: Tensor) -> Tensor:
    """Keep the `magnitude` highest of the 8 bits."""
    step = 2 ** (8 - magnitude[:, None, None, None])
    return (x / step).floor() * step


def solarize(x: Tensor, magnitude: Tensor, fill: Tensor) -> Tensor:
    """Invert the levels from `magnitude` on."""
    return torch.where(x >= magnitude[:, None, None, None], LEVELS - x, x)


def autocontrast(x: Tensor, magnitude: Tensor, fill: Tensor) -> Tensor:
    """Stretch each channel to 0 .. 255; a channel of one level stays."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    stretched = ((x - low) * (LEVELS / (high - low))).clamp(0, LEVELS).floor()
    return torch.where(high > low, stretched, x)


def equalize(x: Tensor, magnitude: Tensor, fill: Tensor) -> Tensor:
    """Level v of a channel becomes floor((pixels below v + s // 2) / s), at most 255, with
    s = (pixels below the highest level) // 255; a channel with s = 0 stays."""
    levels = x.flatten(0, 1).flatten(1).long()
    counts = torch.zeros(len(levels), 256, dtype=levels.dtype, device=x.device)
    counts.scatter_add_(1, levels, torch.ones_like(levels))
    highest = levels.amax(1, keepdim=True)
    step = (levels.shape[1] - counts.gather(1, highest)) // 255
    below = counts.cumsum(1) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp(0, 255)
    equalized = torch.where(step > 0, table.gather(1, levels), levels)
    return equalized.to(x.dtype).view_as(x)


def invert(x: Tensor, magnitude: Tensor, fill: Tensor) -> Tensor:
    """255 minus the level."""
    return LEVELS - x


MOVES = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
BLENDS = ("Brightness", "Color", "Contrast", "Sharpness")
OPERATIONS: dict[str, Operation] = {
    **{name: functools.partial(moved, name) for name in MOVES},
    **{name: functools.partial(blended, name) for name in BLENDS},
    **{"Posterize": posterize, "Solarize": solarize, "AutoContrast": autocontrast},
    **{"Equalize": equalize, "Invert": invert},
}
#: Largest magnitude of operations with a random sign: shears, angles, and factors 1 + magnitude of blends.
SIGNED = {"ShearX": 0.3, "ShearY": 0.3, "Rotate": 30.0} | dict.fromkeys(BLENDS, 0.9)
#: Largest shift as a share of the image's side.
SHIFT = 150 / 331


def magnitude_of(name: str, level: int | None, sign: int, side: int) -> float:
    """Return the magnitude of an operation at `level` 0 .. 9 of strength, for images of `side` pixels."""
    part = (level or 0) / (BINS - 1)
    if name.startswith("Translate"):
        return sign * part * SHIFT * side
    if name == "Posterize":
        return 8 - round(4 * part)
    if name == "Solarize":
        return LEVELS * (1 - part)
    return sign * part * SIGNED.get(name, 0.0)


@functools.cache
def policy() -> tuple[tuple[tuple[str, float, int | None], ...], ...]:
    """Return the 25 pairs of (operation, probability, level)."""
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy

    return tuple(AutoAugment(AutoAugmentPolicy.CIFAR10).policies)


def apply_policy(x: Tensor, fill: Tensor, generator: torch.Generator) -> Tensor:
    """Apply a random pair of the policy to each image of `x` [n, 3, H, W]: the first operation of all images,
    then the second, batched by kind. `fill` [3] are the levels of empty corners.
    """
    count, device = len(x), generator.device
    pairs = torch.randint(len(policy()), (count,), device=device, generator=generator)
    chances = torch.rand(2, count, device=device, generator=generator)
    signs = torch.randint(2, (2, count), device=device, generator=generator)
    # one transfer, so that the operation of each image is known on the CPU
    pairs, chances, signs = pairs.tolist(), chances.tolist(), signs.tolist()
    for place in range(2):
        taken: dict[str, list[tuple[int, float]]] = {}
        for image in range(count):
            name, probability, level = policy()[pairs[image]][place]
            if chances[place][image] <= probability:
                side = x.shape[3] if name == "TranslateX" else x.shape[2]
                sign = 2 * signs[place][image] - 1
                taken.setdefault(name, []).append((image, magnitude_of(name, level, sign, side)))
        changed = x.clone()
        for name, images in taken.items():
            indices, magnitudes = zip(*images, strict=True)
            index = torch.tensor(indices, device=x.device)
            magnitude = torch.tensor(magnitudes, dtype=x.dtype, device=x.device)
            changed[index] = OPERATIONS[name](x[index], magnitude, fill)
        x = changed
    return x
