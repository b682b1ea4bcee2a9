import itertools

import pytest
import torch
from scipy import stats
from torchvision.transforms import AutoAugment, AutoAugmentPolicy, InterpolationMode
from torchvision.transforms.autoaugment import _apply_op

from robust_flatness.config import AugmentationSpec
from robust_flatness.data import augmentation
from robust_flatness.data.augmentation import augment
from robust_flatness.data.autoaugment import OPERATIONS, POLICY, apply_policy, magnitude_of


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count, channels=3, size=6):
    return 0.1 + 0.8 * torch.rand(count, channels, size, size, generator=seeded(9))


def test_crops_are_uniform_shifts_with_zeros():
    padded = torch.nn.functional.pad(images(1)[0], (1, 1, 1, 1))
    shifts = [padded[:, row : row + 6, column : column + 6] for row in range(3) for column in range(3)]
    cropped = augmentation.random_crop(images(1).expand(900, -1, -1, -1), 1, seeded())
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
    assert a.min() >= 0
    assert a.max() <= 1


def test_with_autoaugment_what_is_left_empty_takes_the_channel_means():
    """No zeros come in: every shift, shear and rotation of an image of the channel means is itself."""
    fill = (100 / 255,) * 3
    flat = torch.tensor(fill)[:, None, None].expand(3, 8, 8)
    cropped = augmentation.random_crop(flat.expand(50, -1, -1, -1), 3, seeded(), fill)
    assert torch.equal(cropped, flat.expand(50, -1, -1, -1))
    spec = AugmentationSpec(crop=3, flip=True, autoaugment=True)
    out = augment(flat.expand(300, -1, -1, -1), spec, seeded(), fill)
    # what changes colours changes all pixels alike
    torch.testing.assert_close(out, out[:, :, :1, :1].expand_as(out), rtol=0, atol=1.01 / 255)


FILL = [100.0, 150.0, 200.0]


def photographs(count, size):
    """Smooth images with noise, some of few levels, one of a single level."""
    coarse = torch.rand(count, 3, 4, 4, generator=seeded(1))
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    noise = torch.randn(count, 3, size, size, generator=seeded(2))
    images = (255 * (smooth + 0.05 * noise)).clamp(0, 255).round()
    images[1] = (images[1] / 64).floor() * 64
    images[2] = 77
    return images


@pytest.mark.parametrize("size", [8, 32])
@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_and_their_magnitudes_are_torchvisions(name, size):
    """Up to one level in products that round to the other side."""
    space = AutoAugment(AutoAugmentPolicy.CIFAR10)._augmentation_space(10, (size, size))
    (magnitudes, signed), x = space[name], photographs(6, size)
    for level in range(10):
        given = magnitudes[level].item() if magnitudes.ndim else 0.0
        for sign in (-1, 1):
            magnitude = magnitude_of(name, level, sign, size)
            assert magnitude == pytest.approx(sign * given if signed else given, rel=1e-6)
            expected = _apply_op(x.byte(), name, magnitude, InterpolationMode.NEAREST, FILL)
            difference = (OPERATIONS[name](x, magnitude, FILL) - expected.float()).abs()
            if name == "ShearY":  # pixels halfway between two
                assert (difference > 0).float().mean() < 0.02
            else:
                assert difference.max() <= 1


def test_every_pair_of_the_policy_comes_as_often_with_its_probabilities():
    """Outcomes of one image, on which most operations differ, against the probabilities of each pair's two
    operations, apart and together."""
    x, count = photographs(3, 16)[0], 40_000
    out = apply_policy(x.expand(count, -1, -1, -1), FILL, seeded(3))
    assert torch.equal(out, out.round())
    found, counts = out.flatten(1).unique(dim=0, return_counts=True)
    frequencies = {tuple(row.tolist()): n.item() for row, n in zip(found, counts, strict=True)}
    expected: dict[tuple, float] = {}
    for pair, *signs in itertools.product(POLICY, (-1, 1), (-1, 1)):
        for used in itertools.product((True, False), repeat=2):
            image, chance = x[None], 1 / 25 / 4
            for (name, probability, level), sign, taken in zip(pair, signs, used, strict=True):
                chance *= probability if taken else 1 - probability
                if taken:
                    image = OPERATIONS[name](image, magnitude_of(name, level or 0, sign, 16), FILL)
            key = tuple(image.flatten().tolist())
            expected[key] = expected.get(key, 0.0) + chance
    likely = {key: chance * count for key, chance in expected.items() if chance * count >= 10}
    assert {*frequencies} <= {*expected}
    seen = [frequencies.get(key, 0) for key in likely]
    rest = count - sum(seen), count - sum(likely.values())
    assert stats.chisquare([*seen, rest[0]], [*likely.values(), rest[1]]).pvalue > 0.001
    assert len(likely) > 50
