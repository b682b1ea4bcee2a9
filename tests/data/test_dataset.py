"""The prepared dataset: exact in what it returns, and never read when damaged."""

import random

import numpy as np
import pytest
import torch

from robust_flatness.config import ConfigError, DataSpec
from robust_flatness.data import load_dataset, make_splits, save_dataset
from robust_flatness.data.dataset import checksum
from robust_flatness.errors import FileError

FAULTS = 1000


@pytest.fixture(scope="module")
def splits():
    return make_splits(DataSpec(name="digits", train=30, unlabeled=20, early_stopping=20, test=25), seed=0)


@pytest.fixture(scope="module")
def prepared(splits, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "seed-0.npz"
    save_dataset(path, splits)
    return path


def test_what_was_saved_is_loaded(prepared, splits):
    dataset = load_dataset(prepared)
    assert dataset.classes == 10
    assert dataset.channels == 1
    assert dataset.mean == tuple(splits["mean"].tolist())
    assert dataset.std == tuple(splits["std"].tolist())
    for split, size in (("train", 30), ("unlabeled", 20), ("early_stopping", 20), ("test", 25)):
        assert dataset.size(split) == size
        x = dataset.images(split)
        assert x.dtype == torch.float32
        assert x.min() >= 0
        assert x.max() <= 1
        assert np.array_equal((x * 255).round().to(torch.uint8).numpy(), splits[f"x_{split}"])


def test_images_do_not_share_memory_with_the_dataset(prepared):
    dataset = load_dataset(prepared)
    dataset.images("test").zero_()
    assert dataset.images("test").any()


def test_first_examples(prepared):
    dataset = load_dataset(prepared)
    assert torch.equal(dataset.images("test", 7), dataset.images("test")[:7])
    assert torch.equal(dataset.labels("test", 7), dataset.labels("test")[:7])
    with pytest.raises(ConfigError, match="26 examples asked for, but x_test has 25"):
        dataset.images("test", 26)


def test_labels_of_the_pool_are_withheld(prepared):
    with pytest.raises(ConfigError, match="withheld"):
        load_dataset(prepared).labels("unlabeled")


def test_equal_splits_give_equal_bytes(prepared, splits, tmp_path):
    save_dataset(tmp_path / "again.npz", dict(reversed(splits.items())))
    again = load_dataset(tmp_path / "again.npz")
    assert again.checksum == load_dataset(prepared).checksum
    save_dataset(tmp_path / "same.npz", splits)
    assert (tmp_path / "same.npz").read_bytes() == prepared.read_bytes()


def test_checksum_sees_values_names_shapes_and_dtypes():
    base = {"a": np.arange(6, dtype=np.int64)}
    others = [
        {"b": base["a"]},
        {"a": base["a"].reshape(2, 3)},
        {"a": base["a"].view(np.uint64)},
        {"a": base["a"][::-1]},
        {"a": base["a"], "b": base["a"]},
        {},
    ]
    assert len({checksum(arrays) for arrays in [base, *others]}) == 7


def assert_refused_or_unchanged(path, expected):
    """A damaged file is refused; a flip in bytes without meaning (a zip's time stamp) changes nothing."""
    try:
        loaded = load_dataset(path)
    except FileError as error:
        assert str(path) in str(error)  # noqa: PT017
        return 1
    assert loaded.arrays.keys() == expected.keys()
    assert all(np.array_equal(loaded.arrays[name], expected[name]) for name in expected)
    return 0


def test_flipped_bits_never_give_other_numbers(prepared, tmp_path):
    rng, whole = random.Random(0), prepared.read_bytes()
    expected, path = load_dataset(prepared).arrays, tmp_path / "damaged.npz"
    refused = 0
    for _ in range(FAULTS):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        refused += assert_refused_or_unchanged(path, expected)
    assert refused > FAULTS / 2


def test_truncated_files_are_refused(prepared, tmp_path):
    rng, whole, path = random.Random(1), prepared.read_bytes(), tmp_path / "damaged.npz"
    for length in [0, 1, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(30))]:
        path.write_bytes(whole[:length])
        with pytest.raises(FileError, match=str(path)):
            load_dataset(path)


def test_rewritten_archive_with_other_values_is_refused(prepared, tmp_path):
    """The zip's own checksums fit; ours does not."""
    with np.load(prepared) as file:
        arrays = {name: file[name] for name in file.files}
    arrays["y_test"] = arrays["y_test"][::-1].copy()
    np.savez(tmp_path / "altered.npz", **arrays)
    with pytest.raises(FileError, match="checksum does not match"):
        load_dataset(tmp_path / "altered.npz")


def test_a_users_own_arrays_are_no_prepared_dataset(tmp_path):
    np.savez(tmp_path / "own.npz", x_train=np.zeros((3, 8, 8), np.uint8))
    with pytest.raises(FileError, match="no checksum"):
        load_dataset(tmp_path / "own.npz")


def test_pickles_are_refused_and_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    np.savez(tmp_path / "bomb.npz", x_train=np.array([Bomb()], dtype=object), sha256=np.array("0"))
    with pytest.raises(FileError, match="bomb"):
        load_dataset(tmp_path / "bomb.npz")
    assert not (tmp_path / "exploded").exists()


def test_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(FileError, match="robust-flatness prepare"):
        load_dataset(tmp_path / "missing.npz")
