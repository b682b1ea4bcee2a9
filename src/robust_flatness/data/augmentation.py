"""Random crops, flips, cutout and AutoAugment on batches of images in [0, 1].
Each image has an independent random choice, drawn on the generator's device. All but AutoAugment, which
torchvision applies image by image on the CPU, are batched tensor operations on the images' device."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from robust_flatness.config import AugmentationSpec
from robust_flatness.errors import ConfigError


def augment(x: Tensor, spec: AugmentationSpec, generator: Generator, fill: Sequence[float] = ()) -> Tensor:
    """Return `x` [n, C, H, W] after the crop, flip, AutoAugment and cutout of `spec`, in this order. The
    channel means `fill` are the values of the hidden square and, with AutoAugment, of empty corners; crops
    without AutoAugment fill with zeros."""
    if spec.crop:
        x = random_crop(x, spec.crop, fill if spec.autoaugment else (0.0,) * x.shape[1], generator)
    if spec.flip:
        flipped = torch.randint(2, (len(x),), generator=generator, device=generator.device).bool()
        x = torch.where(flipped.to(x.device)[:, None, None, None], x.flip(3), x)
    if spec.autoaugment:
        x = autoaugment(x, fill, generator)
    if spec.cutout:
        x = cutout(x, spec.cutout, fill, generator)
    return x


def random_crop(x: Tensor, pixels: int, fill: Sequence[float], generator: Generator) -> Tensor:
    """Shift each image by up to `pixels` in both directions, filling with the channel values `fill`."""
    count, _, height, width = x.shape
    offset = torch.randint(2 * pixels + 1, (2, count), generator=generator, device=generator.device)
    offset = offset.to(x.device)
    padded = channel_values(x, fill).expand(count, -1, height + 2 * pixels, width + 2 * pixels).clone()
    padded[..., pixels:-pixels, pixels:-pixels] = x
    rows = offset[0, :, None, None] + torch.arange(height, device=x.device)[:, None]
    columns = offset[1, :, None, None] + torch.arange(width, device=x.device)
    # indices around a slice: the gathered dimensions come first, channels last
    images = torch.arange(count, device=x.device)[:, None, None]
    return padded[images, :, rows, columns].permute(0, 3, 1, 2).contiguous()


def autoaugment(x: Tensor, fill: Sequence[float], generator: Generator) -> Tensor:
    """Apply a random pair of operations of AutoAugment's CIFAR-10 policy (Cubuk et al., CVPR 2019) to each
    image, in 256 levels. Corners left empty take the channel values `fill`. Grey images are repeated to three
    channels and averaged afterwards."""
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy

    channels = x.shape[1]
    if channels not in (1, 3):
        raise ConfigError(f"AutoAugment requires images of 1 or 3 channels; these have {channels}")
    levels = (255 * x).round().byte().expand(-1, 3, -1, -1).cpu()
    filled = [round(255 * value) for value in fill] * (3 // channels)
    policy = AutoAugment(AutoAugmentPolicy.CIFAR10, fill=filled)
    seed = torch.randint(2**63 - 1, (), generator=generator, device=generator.device).item()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torchvision draws from it
        images = torch.stack([policy(image) for image in levels])
    images = images.to(x.device, x.dtype) / 255
    return images if channels == 3 else images.mean(1, keepdim=True)


def cutout(x: Tensor, size: int, fill: Sequence[float], generator: Generator) -> Tensor:
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
