import pytest
import torch
from scipy import stats

from robust_flatness.config import AugmentationSpec
from robust_flatness.data.augmentation import augment, autoaugment, cutout, random_crop, random_flip


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(count, channels=3, size=6):
    return 0.1 + 0.8 * torch.rand(count, channels, size, size, generator=seeded(9))


def shifted(image, down, right):
    """`image` moved by whole pixels, zeros moving in."""
    result = torch.zeros_like(image)
    height, width = image.shape[1:]
    for row in range(height):
        for column in range(width):
            if 0 <= row - down < height and 0 <= column - right < width:
                result[:, row, column] = image[:, row - down, column - right]
    return result


def test_crops_are_uniform_shifts_with_zeros():
    image = images(1)[0]
    shifts = {(d, r): shifted(image, d, r) for d in (-1, 0, 1) for r in (-1, 0, 1)}
    cropped = random_crop(image.expand(900, -1, -1, -1), 1, seeded())
    counts = [sum(torch.equal(crop, shift) for crop in cropped) for shift in shifts.values()]
    assert sum(counts) == 900
    assert stats.chisquare(counts).pvalue > 0.001


def test_half_of_the_images_are_mirrored():
    x = images(400)
    flipped = random_flip(x, seeded())
    kept = [torch.equal(a, b) for a, b in zip(flipped, x, strict=True)]
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(flipped, x, strict=True)]
    assert all(k != m for k, m in zip(kept, mirrored, strict=True))
    assert stats.binomtest(sum(mirrored), 400, 0.5).pvalue > 0.001


@pytest.mark.parametrize("size", [3, 4])
def test_cutout_fills_a_square_with_the_channel_means(size):
    x = images(300, size=8)
    fill = (0.01, 0.02, 0.03)
    cut = cutout(x, size, fill, seeded())
    changed = (cut != x).any(1)
    value = torch.tensor(fill)[:, None]
    whole = 0
    for i in range(300):
        rows, columns = changed[i].any(1).nonzero(), changed[i].any(0).nonzero()
        height = rows.max() - rows.min() + 1
        width = columns.max() - columns.min() + 1
        assert changed[i].sum() == height * width
        assert height <= size
        assert width <= size
        touches = rows.min() == 0 or rows.max() == 7 or columns.min() == 0 or columns.max() == 7
        assert touches or (height == width == size)
        whole += height == width == size
        assert torch.equal(cut[i][:, changed[i]], value.expand(-1, changed[i].sum()))
    # the square is whole where its centre is far enough from the border
    inside = (8 - size + 1) / 8
    assert stats.binomtest(int(whole), 300, inside**2).pvalue > 0.001


def test_same_generator_same_images_and_input_untouched():
    x = images(20)
    before = x.clone()
    spec = AugmentationSpec(crop=1, flip=True, autoaugment=True, cutout=2)
    a, b, c = (augment(x, spec, seeded(s), fill=(0.5,) * 3) for s in (0, 0, 1))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(x, before)
    assert a.min() >= 0
    assert a.max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_autoaugment_leaves_the_global_state_alone(channels):
    x, fill = images(30, channels, size=8), (0.5,) * channels
    state = torch.get_rng_state()
    out = autoaugment(x, seeded(), fill)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(123)
    assert torch.equal(autoaugment(x, seeded(), fill), out)
    torch.set_rng_state(state)
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    levels = (x * 255).round() / 255
    changed = [not torch.allclose(a, b, atol=1e-3) for a, b in zip(out, levels, strict=True)]
    # transforms differ from image to image; some leave an image as it is
    assert sum(changed) > 10
    same = autoaugment(x[:1].expand(30, -1, -1, -1), seeded(), fill)
    assert len({tuple(image.flatten().tolist()) for image in same}) > 5


def test_with_autoaugment_what_is_left_empty_takes_the_channel_means():
    """No zeros come in: of an image that is the channel means, every shift, shear and rotation is itself.
    Grey ones, which saturation and contrast leave alone before what moves the image."""
    fill = (100 / 255,) * 3
    flat = torch.tensor(fill)[:, None, None].expand(3, 8, 8)
    cropped = random_crop(flat.expand(50, -1, -1, -1), 3, seeded(), fill)
    assert torch.equal(cropped, flat.expand(50, -1, -1, -1))
    spec = AugmentationSpec(crop=3, flip=True, autoaugment=True)
    out = augment(flat.expand(300, -1, -1, -1), spec, seeded(), fill)
    # what changes colours changes all pixels alike
    torch.testing.assert_close(out, out[:, :, :1, :1].expand_as(out), rtol=0, atol=1.01 / 255)
