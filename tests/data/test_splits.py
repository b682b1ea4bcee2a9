"""Splits are disjoint, stratified and seeded; a user's arrays are checked when they are read."""

from collections import Counter

import numpy as np
import pytest
from sklearn.datasets import load_digits

from robust_flatness.config import ConfigError, DataSpec
from robust_flatness.data import Dataset, make_splits
from robust_flatness.data.dataset import checksum
from robust_flatness.data.npz import read_npz
from robust_flatness.errors import FileError

SIZES = {"train": 150, "unlabeled": 450, "early_stopping": 200, "test": 500}
SPLITS = tuple(SIZES)


@pytest.fixture(scope="module")
def digits():
    return make_splits(DataSpec(name="digits", **SIZES), seed=0)


def keys_of(images: np.ndarray) -> list[bytes]:
    return [image.tobytes() for image in images]


def arrays():
    """Numbered images, so that each can be found again: its first two pixels are its index."""
    rng = np.random.default_rng(0)
    found = {}
    for offset, (part, count) in enumerate({"train": 60, "test": 40}.items()):
        x = rng.integers(0, 256, (count, 4, 4), dtype=np.uint8)
        x[:, 0, 0], x[:, 0, 1] = np.arange(count), offset
        found |= {f"x_{part}": x, f"y_{part}": np.arange(count) % 3}
    return found


def save(path, changed=None, without=()):
    content = arrays() | (changed or {})
    np.savez(path, **{key: value for key, value in content.items() if key not in without})
    return path


def npz_spec(path, **sizes):
    return DataSpec(name="npz", path=str(path), **({"train": 20, "early_stopping": 10, "test": 15} | sizes))


def test_a_pool_with_pseudo_labels_is_used_in_its_order(tmp_path):
    pool = {"x_unlabeled": arrays()["x_test"][:30], "y_unlabeled": np.arange(30) % 3}
    path = save(tmp_path / "own.npz", pool)
    splits = make_splits(npz_spec(path, train=60, unlabeled=25), 0)
    assert np.array_equal(splits["x_unlabeled"][:, 0], pool["x_unlabeled"][:25])
    assert np.array_equal(splits["pseudo_labels"], pool["y_unlabeled"][:25])
    assert "y_unlabeled" not in splits
    assert len(splits["x_train"]) == 60  # no training image goes to the pool
    for split, size in {"unlabeled": 31, "train": 61, "test": 31, "early_stopping": 41}.items():
        with pytest.raises(ConfigError, match=f"data.{split}"):
            make_splits(npz_spec(path, **{"test": 1, split: size}), 0)


def test_splits_are_disjoint_examples_of_the_source(digits):
    """Images are counted, since the data may have one twice."""
    images = np.rint(load_digits().images * (255 / 16)).astype(np.uint8)
    found = Counter(key for split in SPLITS for key in keys_of(digits[f"x_{split}"]))
    assert found <= Counter(keys_of(images))
    labelled = Counter()
    for split in ("train", "early_stopping", "test"):
        labelled.update(zip(keys_of(digits[f"x_{split}"]), digits[f"y_{split}"].tolist(), strict=True))
    assert labelled <= Counter(zip(keys_of(images), load_digits().target.tolist(), strict=True))
    assert all(digits[f"x_{split}"].shape == (size, 1, 8, 8) for split, size in SIZES.items())


def test_splits_are_stratified(digits):
    shares = np.bincount(load_digits().target) / 1797
    for split in ("train", "early_stopping", "test"):
        counts = np.bincount(digits[f"y_{split}"], minlength=10)
        assert np.abs(counts - shares * SIZES[split]).max() <= 2


def test_splits_depend_on_the_seed_and_not_on_the_size_of_the_pool(digits):
    other = make_splits(DataSpec(name="digits", **SIZES), seed=1)
    assert not np.array_equal(digits["x_test"], other["x_test"])
    smaller = make_splits(DataSpec(name="digits", **(SIZES | {"unlabeled": 0})), seed=0)
    for split in ("train", "early_stopping", "test"):
        assert np.array_equal(digits[f"x_{split}"], smaller[f"x_{split}"])
    assert len(smaller["x_unlabeled"]) == 0


def test_fashion_has_fixed_test_images_and_training_images_by_seed():
    spec = {"name": "fashion", "train": 128, "unlabeled": 512, "early_stopping": 500, "test": 1000}
    fashion = make_splits(DataSpec(**spec), seed=0)
    other = make_splits(DataSpec(**(spec | {"unlabeled": 0, "early_stopping": 1000})), seed=1)
    assert np.array_equal(other["x_test"], fashion["x_test"])
    assert np.array_equal(other["x_early_stopping"][500:], fashion["x_early_stopping"])
    assert not np.array_equal(other["x_train"], fashion["x_train"])
    images = {split: {x.tobytes() for x in fashion[f"x_{split}"]} for split in SPLITS}
    assert not images["train"] & (images["unlabeled"] | images["test"] | images["early_stopping"])
    assert not images["test"] & images["early_stopping"]
    assert np.bincount(fashion["y_train"]).max() <= 15  # stratified: about 13 of each class


def test_npz_splits_keep_the_order_of_the_file(tmp_path):
    """Test images are the head and early-stopping images the tail; training images and pool are disjoint."""
    path, source = save(tmp_path / "data.npz"), arrays()
    splits = make_splits(npz_spec(path, train=25, unlabeled=30), seed=0)
    for kind in ("x", "y"):
        found = {split: splits[f"{kind}_{split}"].squeeze() for split in ("test", "early_stopping")}
        assert np.array_equal(found["test"], source[f"{kind}_test"][:15])
        assert np.array_equal(found["early_stopping"], source[f"{kind}_test"][-10:])
    train, pool = (splits[f"x_{split}"][:, 0, 0, 0].astype(int) for split in ("train", "unlabeled"))
    assert not set(train) & set(pool)
    assert (np.diff(train) > 0).all()
    assert (np.diff(pool) > 0).all()
    assert np.array_equal(splits["y_train"], train % 3)
    others = make_splits(npz_spec(path, train=["train 5-9"], unlabeled=55), seed=0)["x_unlabeled"]
    assert {*range(60)} - {*others[:, 0, 0, 0].tolist()} == {*range(5, 10)}
    whole = make_splits(npz_spec(path, train=60), seed=0)
    assert np.array_equal(whole["x_train"][:, 0], source["x_train"])


FORMS = {
    "floats": lambda x, y: (x.astype(np.float32) / 255, y),
    "one-hot": lambda x, y: (x, np.eye(3, dtype=np.float32)[y]),
    "column": lambda x, y: (x, y[:, None]),
}


@pytest.mark.parametrize("form", FORMS)
def test_other_forms_of_the_same_arrays_give_the_same(tmp_path, form):
    own = read_npz(save(tmp_path / "plain.npz"))
    source, changed = arrays(), {}
    for part in ("train", "test"):
        changed[f"x_{part}"], changed[f"y_{part}"] = FORMS[form](source[f"x_{part}"], source[f"y_{part}"])
    assert checksum(read_npz(save(tmp_path / "other.npz", changed))) == checksum(own)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_may_come_first(tmp_path, channels):
    rng = np.random.default_rng(0)
    last = {f"x_{part}": rng.integers(0, 256, (n, 8, 6, channels), np.uint8)
            for part, n in (("train", 60), ("test", 40))}  # fmt: skip
    first = {key: images.transpose(0, 3, 1, 2) for key, images in last.items()}
    for index, given in enumerate((last, first)):
        found = read_npz(save(tmp_path / f"{index}.npz", given))
        assert all(np.array_equal(found[key], images) for key, images in first.items())


def test_measures_need_test_images_alone_and_any_floats(tmp_path):
    floats = np.linspace(0, 1, 40 * 16, dtype=np.float32).reshape(40, 4, 4)
    path = save(tmp_path / "data.npz", {"x_test": floats}, without=["x_train", "y_train"])
    found = read_npz(path, to_measure=True)
    assert {*found} == {"x_test", "y_test"}
    images = Dataset(found).images("test")
    assert np.array_equal(images[:, 0].numpy(), floats)
    with pytest.raises(FileError, match="x_train, y_train missing"):
        read_npz(path)


def test_the_standard_deviation_of_a_constant_channel_is_not_zero(tmp_path):
    black = np.zeros((60, 4, 4), np.uint8)
    splits = make_splits(npz_spec(save(tmp_path / "data.npz", {"x_train": black})), seed=0)
    assert (splits["std"] > 0).all()


BAD_ARRAYS = [
    ("x_train", np.full((60, 4, 4), 0.3)), ("x_train", np.full((60, 4, 4), -1.0)),
    ("x_train", np.full((60, 4, 4), 16.0)), ("x_train", np.zeros((60, 4, 4), int)),
    ("x_test", np.full((40, 4, 4), np.nan)), ("x_train", np.zeros((60, 16), np.uint8)),
    ("x_train", np.zeros((60, 5, 8, 8), np.uint8)), ("x_train", np.zeros((60, 3, 8, 3), np.uint8)),
    ("x_test", np.zeros((0, 4, 4), np.uint8)), ("x_test", np.zeros((40, 5, 4), np.uint8)),
    ("y_train", np.zeros(59, int)), ("y_train", np.full(60, 0.5)), ("y_train", np.full(60, "a")),
    ("y_train", np.arange(60) % 3 - 1), ("y_test", np.arange(40) % 5),
]  # fmt: skip


@pytest.mark.parametrize(("key", "array"), BAD_ARRAYS)
def test_bad_arrays_are_refused(tmp_path, key, array):
    with pytest.raises(FileError, match=rf"data\.npz: .*{key}"):
        make_splits(npz_spec(save(tmp_path / "data.npz", {key: array})), 0)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not a zip", b"\x93NUMPY\x01\x00", b"\x80\x04N."])
def test_other_files_and_pickled_arrays_are_refused(tmp_path, content):
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    np.save(tmp_path / "array.npy", np.zeros(3))
    pickled = save(tmp_path / "pickled.npz", {"y_train": np.array([0] * 60, dtype=object)})
    for unusable in (path, tmp_path / "missing.npz", tmp_path, tmp_path / "array.npy", pickled):
        with pytest.raises(FileError, match=str(unusable)):
            read_npz(unusable)
