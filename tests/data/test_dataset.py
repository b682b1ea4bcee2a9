"""The prepared dataset returns what was saved, and damaged files are refused."""

import random

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from robust_flatness.config import ConfigError, DataSpec
from robust_flatness.data import load_dataset, make_splits, save_dataset
from robust_flatness.data.dataset import checksum, load_pseudo_labels, save_pseudo_labels
from robust_flatness.errors import FileError

FAULTS = 100


@pytest.fixture(scope="module")
def splits():
    return make_splits(DataSpec(name="digits", train=30, unlabeled=20, early_stopping=20, test=25), seed=0)


@pytest.fixture(scope="module")
def prepared(splits, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "seed-0.safetensors"
    save_dataset(path, splits)
    return path


def test_saved_splits_are_loaded(prepared, splits):
    dataset = load_dataset(prepared)
    assert dataset.checksum == checksum(splits)
    assert dataset.classes == 10
    assert dataset.mean == tuple(splits["mean"].tolist())
    assert dataset.std == tuple(splits["std"].tolist())
    for split, size in (("train", 30), ("unlabeled", 20), ("early_stopping", 20), ("test", 25)):
        assert dataset.size(split) == size
        assert dataset.pixels(split).dtype == torch.uint8
        x = dataset.images(split)
        assert x.dtype == torch.float32
        assert np.array_equal((x * 255).round().numpy(), splits[f"x_{split}"])


def test_labels_of_the_pool_are_withheld(prepared):
    with pytest.raises(ConfigError, match="y_unlabeled is requested"):
        load_dataset(prepared).labels("unlabeled")


def test_checksum_depends_on_values_names_shapes_and_dtypes():
    a = np.arange(6, dtype=np.int64)
    same_name = [a, a.reshape(2, 3), a.view(np.uint64), a[::-1]]
    others = [{"b": a}, {"a": a, "b": a}, {}]
    assert len({checksum(arrays) for arrays in [*({"a": array} for array in same_name), *others]}) == 7


def test_pseudo_labels_belong_to_their_dataset(prepared, splits, tmp_path):
    path, dataset = tmp_path / "pseudo-labels.safetensors", load_dataset(prepared)
    save_pseudo_labels(path, np.arange(20), dataset)
    assert load_pseudo_labels(path, dataset).tolist() == [*range(20)]
    save_dataset(tmp_path / "other.safetensors", splits | {"x_test": splits["x_test"][::-1]})
    with pytest.raises(FileError, match="another dataset"):
        load_pseudo_labels(path, load_dataset(tmp_path / "other.safetensors"))


def test_damaged_files_are_refused(prepared, splits, tmp_path):
    """Truncated, of another checksum, or with flipped bits, if those have a meaning (unlike white space)."""
    rng, whole, path = random.Random(0), prepared.read_bytes(), tmp_path / "damaged.safetensors"
    refused = 0
    for _ in range(FAULTS):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(whole))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            assert checksum(load_dataset(path).arrays) == checksum(splits)
        except FileError as error:
            assert str(path) in str(error)  # noqa: PT017
            refused += 1
    assert refused > 0.9 * FAULTS
    for length in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(FileError, match=str(path)):
            load_dataset(path)
    save_file(load_file(prepared), path, metadata={"sha256": "0" * 64})
    with pytest.raises(FileError, match="checksum does not match"):
        load_dataset(path)
