"""Random crops, flips, cutout and AutoAugment on batches of images in [0, 1].

All are batched tensor operations with an independent random choice for each image, drawn on the generator's
device. If that is the images' device, only AutoAugment needs a transfer, one per batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from robust_flatness.config import AugmentationSpec


def augment(
    x: Tensor, spec: AugmentationSpec, generator: torch.Generator, fill: Sequence[float] = ()
) -> Tensor:
    """Return `x` [n, C, H, W] after the crop, flip, AutoAugment and cutout of `spec`, in this order. The
    channel means `fill` are the values of the hidden square and, with AutoAugment, of empty corners; crops
    without AutoAugment fill with zeros."""
    if spec.crop:
        x = random_crop(x, spec.crop, generator, fill if spec.autoaugment else ())
    if spec.flip:
        flipped = torch.randint(2, (len(x),), generator=generator, device=generator.device).bool()
        x = torch.where(flipped.to(x.device)[:, None, None, None], x.flip(3), x)
    if spec.autoaugment:
        from robust_flatness.data.autoaugment import autoaugment  # loads torchvision

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
