"""Each operation against torchvision's on uint8 images, and the policy's distribution."""

import pytest
import torch
from scipy import stats
from torchvision.transforms import AutoAugment, AutoAugmentPolicy, InterpolationMode
from torchvision.transforms.autoaugment import _apply_op

from robust_flatness.data.autoaugment import OPERATIONS, apply_policy, magnitude_of, policy

FILL = (100.0, 150.0, 200.0)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


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
def test_operations_are_torchvisions(name, size):
    x = photographs(6, size)
    for level in range(10):
        for sign in (-1, 1):
            magnitude = magnitude_of(name, level, sign, size)
            expected = torch.stack(
                [_apply_op(i, name, magnitude, InterpolationMode.NEAREST, list(FILL)) for i in x.byte()]
            )
            found = OPERATIONS[name](x, torch.full((6,), magnitude), torch.tensor(FILL))
            difference = (found - expected.float()).abs()
            if name in ("ShearX", "ShearY", "Rotate"):
                # pixels halfway between two
                assert (difference > 0).float().mean() < 0.02
            else:
                # products that round to the other side of a whole level
                assert difference.max() <= 1


def test_magnitudes_are_torchvisions():
    space = AutoAugment(AutoAugmentPolicy.CIFAR10)._augmentation_space(10, (32, 32))
    assert set(space) == set(OPERATIONS)
    for name, (values, signed) in space.items():
        for level in range(10):
            given = values[level].item() if values.ndim else 0.0
            for sign in (-1, 1):
                expected = sign * given if signed else given
                found = magnitude_of(name, level, sign, 32)
                assert found == pytest.approx(expected, rel=1e-6)


def test_images_of_a_batch_have_magnitudes_of_their_own():
    x, magnitudes = photographs(4, 8), torch.tensor([-0.9, -0.3, 0.3, 0.9])
    for name in ("Brightness", "Rotate", "ShearX"):
        together = OPERATIONS[name](x, magnitudes, torch.tensor(FILL))
        alone = [OPERATIONS[name](x[i : i + 1], magnitudes[i : i + 1], torch.tensor(FILL)) for i in range(4)]
        assert torch.equal(together, torch.cat(alone))


def test_every_pair_of_the_policy_comes_as_often_with_its_probabilities():
    """Of an image on which all operations but the inert ones tell themselves, the outcomes are counted
    against torchvision's probabilities: those of each pair's two operations, apart and together."""
    x = photographs(3, 16)[0]
    count = 40_000
    out = apply_policy(x.expand(count, -1, -1, -1), torch.tensor(FILL), seeded(3))
    assert out.shape == (count, 3, 16, 16)
    assert torch.equal(out, out.round())
    found, counts = out.flatten(1).unique(dim=0, return_counts=True)
    frequencies = {tuple(row.tolist()): n.item() for row, n in zip(found, counts, strict=True)}
    expected: dict[tuple, float] = {}
    for first, second in policy():
        for signs in ((a, b) for a in (-1, 1) for b in (-1, 1)):
            for used in ((a, b) for a in (True, False) for b in (True, False)):
                image, chance = x[None], 1 / 25 / 4
                for (name, probability, level), sign, taken in zip((first, second), signs, used, strict=True):
                    chance *= probability if taken else 1 - probability
                    if taken:
                        magnitude = torch.tensor([magnitude_of(name, level, sign, 16)])
                        image = OPERATIONS[name](image, magnitude, torch.tensor(FILL))
                key = tuple(image.flatten().tolist())
                expected[key] = expected.get(key, 0.0) + chance
    likely = {key: chance * count for key, chance in expected.items() if chance * count >= 10}
    assert set(frequencies) <= set(expected)
    rest = count - sum(likely.values())
    seen = [frequencies.get(key, 0) for key in likely]
    result = stats.chisquare([*seen, count - sum(seen)], [*likely.values(), rest])
    assert result.pvalue > 0.001
    assert len(likely) > 50
