"""Random crops, flips, cutout and AutoAugment on batches of images in [0, 1].

All are batched tensor operations with an independent random choice for each image, drawn on the generator's
device. If that is the images' device, only AutoAugment needs a transfer, one per batch.

The operations of AutoAugment's CIFAR-10 policy (Cubuk et al., CVPR 2019) take images [n, 3, H, W] of integral
levels 0 .. 255, as floats, magnitudes [n], and the levels [3] of empty corners. They return the results of
torchvision's operations of these names on uint8 tensors.
"""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from robust_flatness.config import AugmentationSpec
from robust_flatness.errors import ConfigError

LEVELS, BINS = 255.0, 10
#: Weights of red, green and blue in the grey image.
GREY = (0.2989, 0.587, 0.114)


def augment(
    x: Tensor, spec: AugmentationSpec, generator: torch.Generator, fill: Sequence[float] = ()
) -> Tensor:
    """Return `x` [n, C, H, W] after the crop, flip, AutoAugment and cutout of `spec`, in this order. The
    channel means `fill` are the values of the hidden square and, with AutoAugment, of empty corners; crops
    without AutoAugment fill with zeros."""
    if spec.crop:
        x = random_crop(x, spec.crop, generator, fill if spec.autoaugment else ())
    if spec.flip:
        x = random_flip(x, generator)
    if spec.autoaugment:
        x = autoaugment(x, generator, fill)
    if spec.cutout:
        x = cutout(x, spec.cutout, fill, generator)
    return x


def random_crop(x: Tensor, pixels: int, generator: torch.Generator, fill: Sequence[float] = ()) -> Tensor:
    """Shift each image by up to `pixels` in both directions, filling with `fill` by channel, or zeros."""
    count, _, height, width = x.shape
    offset = torch.randint(2 * pixels + 1, (2, count), generator=generator, device=generator.device)
    offset = offset.to(x.device)
    padded = F.pad(x, (pixels,) * 4)
    if fill:
        padded[..., :pixels, :] = padded[..., -pixels:, :] = channel_values(x, fill)
        padded[..., :pixels] = padded[..., -pixels:] = channel_values(x, fill)
    rows = offset[0, :, None, None] + torch.arange(height, device=x.device)[:, None]
    columns = offset[1, :, None, None] + torch.arange(width, device=x.device)
    # indices around a slice: the gathered dimensions come first, channels last
    images = torch.arange(count, device=x.device)[:, None, None]
    return padded[images, :, rows, columns].permute(0, 3, 1, 2).contiguous()


def random_flip(x: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image from left to right with probability 1/2."""
    flipped = torch.randint(2, (len(x),), generator=generator, device=generator.device).bool().to(x.device)
    return torch.where(flipped[:, None, None, None], x.flip(3), x)


def cutout(x: Tensor, size: int, fill: Sequence[float], generator: torch.Generator) -> Tensor:
    """Fill a square of `size` pixels with the channel values `fill` (DeVries and Taylor, 2017). Its centre is
    uniform over the image, so that it may extend beyond the border."""
    inside = []
    for side in x.shape[2:]:
        centre = torch.randint(side, (len(x), 1), generator=generator, device=generator.device)
        start, index = centre.to(x.device) - size // 2, torch.arange(side, device=x.device)
        inside.append((index >= start) & (index < start + size))
    hidden = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return torch.where(hidden, channel_values(x, fill), x)


def channel_values(x: Tensor, fill: Sequence[float]) -> Tensor:
    """Return `fill`, one value for each channel of the images `x`, as a tensor [C, 1, 1]."""
    return torch.tensor(fill, dtype=x.dtype, device=x.device)[:, None, None]


def autoaugment(x: Tensor, generator: torch.Generator, fill: Sequence[float]) -> Tensor:
    """Apply AutoAugment's CIFAR-10 policy to each image, in 256 levels. Corners left empty take the channel
    values `fill`. Grey images are repeated to three channels and averaged afterwards."""
    channels = x.shape[1]
    if channels not in (1, 3):
        raise ConfigError(f"AutoAugment requires images of 1 or 3 channels; these have {channels}")
    filled = (channel_values(x, fill).flatten() * LEVELS).round().expand(3)
    levels = (x * LEVELS).round().expand(-1, 3, -1, -1)
    images = apply_policy(levels, filled, generator) / LEVELS
    return images if channels == 3 else images.mean(1, keepdim=True)


def moved(kind: str, x: Tensor, magnitude: Tensor, fill: Tensor) -> Tensor:
    """Shear, shift (by whole pixels, rounded towards zero) or rotate (by degrees, counter-clockwise) each
    image, by nearest-neighbour sampling. Rows and columns [H, W, n] are relative to the centre."""
    count, channels, height, width = x.shape
    row = torch.arange(height, device=x.device, dtype=x.dtype)[:, None, None] + (0.5 - height / 2)
    column = torch.arange(width, device=x.device, dtype=x.dtype)[None, :, None] + (0.5 - width / 2)
    if kind == "ShearY":
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
    black (Brightness), the grey image (Color), its mean (Contrast), or, except at the border, `x` smoothed
    by (1 1 1, 1 5 1, 1 1 1) / 13 (Sharpness)."""
    red, green, blue = x.unbind(1)
    grey = (GREY[0] * red + GREY[1] * green + GREY[2] * blue).floor()[:, None]
    if kind == "Brightness":
        other = torch.zeros_like(x)
    elif kind == "Color":
        other = grey
    elif kind == "Contrast":
        other = grey.mean(dim=(1, 2, 3), keepdim=True)
    else:
        kernel = x.new_ones(3, 3)
        kernel[1, 1] = 5
        smooth = F.conv2d(x.flatten(0, 1)[:, None], kernel[None, None] / 13)
        other = x.clone()
        other[..., 1:-1, 1:-1] = smooth.round().view_as(other[..., 1:-1, 1:-1])
    ratio = 1 + magnitude[:, None, None, None]
    return (ratio * x + (1 - ratio) * other).clamp(0, LEVELS).floor()


def autocontrast(x: Tensor, magnitude: Tensor, fill: Tensor) -> Tensor:
    """Stretch each channel to 0 .. 255; a channel of one level stays."""
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    stretched = ((x - low) * (LEVELS / (high - low))).clamp(0, LEVELS).floor()
    return torch.where(high > low, stretched, x)


def equalize(x: Tensor, magnitude: Tensor, fill: Tensor) -> Tensor:
    """Equalise histograms: level v of a channel becomes floor((pixels below v + s // 2) / s), at most 255,
    with s = (pixels below the highest level) // 255; a channel with s = 0 stays."""
    levels = x.flatten(0, 1).flatten(1).long()
    counts = torch.zeros(len(levels), 256, dtype=levels.dtype, device=x.device)
    counts.scatter_add_(1, levels, torch.ones_like(levels))
    highest = levels.amax(1, keepdim=True)
    step = (levels.shape[1] - counts.gather(1, highest)) // 255
    below = counts.cumsum(1) - counts
    table = ((below + step // 2) // step.clamp(min=1)).clamp(0, 255)
    equalized = torch.where(step > 0, table.gather(1, levels), levels)
    return equalized.to(x.dtype).view_as(x)


def recolored(kind: str, x: Tensor, magnitude: Tensor, fill: Tensor) -> Tensor:
    """Keep the `magnitude` highest of the 8 bits (Posterize), or invert all levels (Invert) or those from
    `magnitude` on (Solarize)."""
    magnitude = magnitude[:, None, None, None]
    if kind == "Posterize":
        return (x / 2 ** (8 - magnitude)).floor() * 2 ** (8 - magnitude)
    return LEVELS - x if kind == "Invert" else torch.where(x >= magnitude, LEVELS - x, x)


BLENDS = ("Brightness", "Color", "Contrast", "Sharpness")
OPERATIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    **{name: functools.partial(moved, name) for name in ("ShearY", "TranslateX", "TranslateY", "Rotate")},
    **{name: functools.partial(blended, name) for name in BLENDS},
    **{name: functools.partial(recolored, name) for name in ("Posterize", "Solarize", "Invert")},
    **{"AutoContrast": autocontrast, "Equalize": equalize},
}
#: Largest magnitude of operations with a random sign; blends have the factor 1 + magnitude.
SIGNED = {"ShearY": 0.3, "Rotate": 30.0} | dict.fromkeys(BLENDS, 0.9)
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
    """Return the 25 pairs of (operation, probability, level) of torchvision."""
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy

    return tuple(AutoAugment(AutoAugmentPolicy.CIFAR10).policies)


def apply_policy(x: Tensor, fill: Tensor, generator: torch.Generator) -> Tensor:
    """Apply a random pair of the policy to each image of `x` [n, 3, H, W]: the first operation of all images,
    then the second, batched by operation. `fill` [3] are the levels of empty corners."""
    count, device = len(x), generator.device
    pairs = torch.randint(len(policy()), (count,), device=device, generator=generator)
    chances = torch.rand(2, count, device=device, generator=generator)
    signs = torch.randint(2, (2, count), device=device, generator=generator)
    # one transfer: images are grouped by operation on the CPU
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
