import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import AutoAugment

from robust_flatness.config import AugmentationSpec
from robust_flatness.data import augmentation
from robust_flatness.data.augmentation import augment


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count, channels=3, size=6):
    return 0.1 + 0.8 * torch.rand(count, channels, size, size, generator=seeded(9))


def test_crops_are_uniform_shifts_with_zeros():
    padded = torch.nn.functional.pad(images(1)[0], (1, 1, 1, 1))
    shifts = [padded[:, row : row + 6, column : column + 6] for row in range(3) for column in range(3)]
    cropped = augmentation.random_crop(images(1).expand(900, -1, -1, -1), 1, (0.0,) * 3, seeded())
    counts = [sum(torch.equal(crop, shift) for crop in cropped) for shift in shifts]
    assert sum(counts) == 900
    assert stats.chisquare(counts).pvalue > 0.001


def test_half_of_the_images_are_mirrored():
    x = images(400)
    flipped = augment(x, AugmentationSpec(flip=True), seeded())
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(flipped, x, strict=True)]
    assert [torch.equal(a, b) for a, b in zip(flipped, x, strict=True)] == [not m for m in mirrored]
    assert stats.binomtest(sum(mirrored), 400, 0.5).pvalue > 0.001


@pytest.mark.parametrize("size", [3, 4])
def test_cutout_fills_a_square_with_the_channel_means(size):
    x, fill = images(300, size=8), (0.01, 0.02, 0.03)
    cut = augmentation.cutout(x, size, fill, seeded())
    changed = (cut != x).any(1)
    assert torch.equal(cut, torch.where(changed[:, None], torch.tensor(fill)[:, None, None], x))
    sides = torch.stack([changed.any(dim).sum(1) for dim in (2, 1)])
    assert torch.equal(changed.sum((1, 2)), sides.prod(0))
    assert sides.max() <= size
    at_border = torch.stack([changed.any(d)[:, [0, -1]].any(1) for d in (1, 2)]).any(0)
    whole = (sides == size).all(0)
    assert (at_border | whole).all()
    # the square is whole where its centre is far enough from the border
    inside = (8 - size + 1) / 8
    assert stats.binomtest(int(whole.sum()), 300, inside**2).pvalue > 0.001


def test_same_generator_same_images_and_input_untouched():
    x = images(20)
    before = x.clone()
    spec = AugmentationSpec(crop=1, flip=True, autoaugment=True, cutout=2)
    state = torch.get_rng_state()
    a, b, c = (augment(x, spec, seeded(s), fill=(0.5,) * 3) for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(x, before)


@pytest.mark.parametrize("channels", [1, 3])
def test_autoaugment_draws_a_pair_of_the_policy_for_each_image(channels, monkeypatch):
    """Every pair is as likely, and copies of an image come out different."""
    pairs, draw = [], AutoAugment.get_params

    def recorded(count):
        drawn = draw(count)
        pairs.append(drawn[0])
        return drawn

    monkeypatch.setattr(AutoAugment, "get_params", staticmethod(recorded))
    x = images(1, channels, size=8).expand(500, -1, -1, -1)
    out = augment(x, AugmentationSpec(autoaugment=True), seeded(), fill=(0.5,) * channels)
    assert stats.chisquare(np.bincount(pairs, minlength=25)).pvalue > 0.001
    assert len(out.unique(dim=0)) > 25
    assert out.shape == x.shape
    assert 0 <= out.min() <= out.max() <= 1


def test_with_autoaugment_what_is_left_empty_takes_the_channel_means():
    """No zeros come in: every shift, shear and rotation of an image of the channel means is itself."""
    fill = (100 / 255,) * 3
    flat = torch.tensor(fill)[:, None, None].expand(3, 8, 8)
    cropped = augmentation.random_crop(flat.expand(50, -1, -1, -1), 3, fill, seeded())
    assert torch.equal(cropped, flat.expand(50, -1, -1, -1))
    spec = AugmentationSpec(crop=3, flip=True, autoaugment=True)
    out = augment(flat.expand(300, -1, -1, -1), spec, seeded(), fill)
    # what changes colours changes all pixels alike
    torch.testing.assert_close(out, out[:, :, :1, :1].expand_as(out), rtol=0, atol=1.01 / 255)
