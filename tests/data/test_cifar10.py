"""CIFAR-10 in the official format: reading, refusing altered files and pickles with code, downloading."""

import hashlib
import os
import pickle
import shutil

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from robust_flatness.config import ConfigError, DataSpec, parse
from robust_flatness.config.data import CIFAR10_FILES
from robust_flatness.data import make_splits
from robust_flatness.data.cifar10 import download_cifar10
from robust_flatness.data.dataset import checksum
from robust_flatness.errors import FileError

RANGES = {
    "train": ["train 0-99", "train 20000-20049"],
    "early_stopping": ["train 10000-10019"],
    "test": ["test 5-24"],
    "unlabeled": ["train 49990-49999"],
}


@pytest.fixture(scope="module")
def official(tmp_path_factory):
    """Random images in the official format: folder, images [60000, 3, 32, 32] and labels."""
    folder = tmp_path_factory.mktemp("cifar") / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60_000, 3072), dtype=np.uint8)
    labels = rng.integers(0, 10, 60_000)
    for number, name in enumerate(CIFAR10_FILES):
        part = slice(10_000 * number, 10_000 * (number + 1))
        content = {"data": images[part], "labels": labels[part].tolist(), "batch_label": "random"}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return folder, images.reshape(-1, 3, 32, 32), labels


def trust(folder, monkeypatch):
    """Let the files in a folder count as the official ones."""
    digests = [[name, hashlib.md5((folder / name).read_bytes()).hexdigest()] for name in CIFAR10_FILES]
    monkeypatch.setattr(CIFAR10, "train_list", digests[:-1])
    monkeypatch.setattr(CIFAR10, "test_list", digests[-1:])


@pytest.fixture
def trusted(official, monkeypatch):
    trust(official[0], monkeypatch)
    return official


def spec(folder, **changes):
    return DataSpec(name="cifar10", path=str(folder), **(RANGES | changes))


def test_ranges_are_of_the_official_order(trusted):
    folder, images, labels = trusted
    splits = make_splits(spec(folder), seed=0)
    index = np.r_[0:100, 20_000:20_050]
    assert np.array_equal(splits["x_train"], images[index])
    assert np.array_equal(splits["y_train"], labels[index])
    assert np.array_equal(splits["x_early_stopping"], images[10_000:10_020])
    assert np.array_equal(splits["y_test"], labels[50_005:50_025])
    assert np.array_equal(splits["x_unlabeled"], images[49_990:50_000])
    assert "y_unlabeled" not in splits
    assert splits["classes"] == 10
    pixels = splits["x_train"] / 255
    np.testing.assert_allclose(splits["mean"], pixels.mean((0, 2, 3)), rtol=1e-14)
    np.testing.assert_allclose(splits["std"], pixels.std((0, 2, 3)), rtol=1e-14)
    assert checksum(splits) == checksum(make_splits(spec(folder), seed=1))


BAD_SETTINGS = [
    ("data.*test", {"test": ["test 0-10000"]}), ("data.*train", {"train": ["train 9-5"]}),
    ("data.*train", {"train": ["trian 0-5"]}), ("data: .*in common", {"train": ["train 0-10000"]}),
    ("data.*train", {"train": ["pool 0-5"]}), ("data.*size", {"size": 15}),
    ("data.*train", {"train": 50_001}),
    ("data: .*digits", {"name": "digits", "path": None}), ("data: .*'fashion' has none", {"name": "fashion"}),
]  # fmt: skip


@pytest.mark.parametrize(("words", "changes"), BAD_SETTINGS)
def test_settings_are_checked_without_reading_the_files(words, changes):
    with pytest.raises(ConfigError, match=words):
        parse(DataSpec, {"name": "cifar10", "path": "nowhere", **RANGES, **changes}, "data")


def test_other_files_need_the_checksum_of_their_splits(official):
    folder, _, _ = official
    with pytest.raises(FileError, match=r"data_batch_1: missing, truncated or altered.*data\.sha256"):
        make_splits(spec(folder), seed=0)
    with pytest.raises(ConfigError, match=r"data\.sha256: 0+ given, but") as error:
        make_splits(spec(folder, sha256="0" * 64), seed=0)
    known = str(error.value).split("have ")[1][:64]
    assert checksum(make_splits(spec(folder, sha256=known), seed=0)) == known


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("content", [
    "truncated", "bomb", [1, 2],
    {"data": np.zeros((10_000, 3071), np.uint8), "labels": [0] * 10_000},
    {"data": np.zeros((10_000, 3072), np.uint8), "labels": [0, 99] * 5_000},
])  # fmt: skip
def test_damaged_files_and_pickles_with_code_are_refused(official, tmp_path, content):
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in CIFAR10_FILES:
        (folder / name).symlink_to(official[0] / name)
    path = folder / "data_batch_3"
    whole = path.read_bytes()
    path.unlink()
    bad = {"truncated": whole[:-5000], "bomb": pickle.dumps({"data": Bomb(tmp_path / "ran")})}
    path.write_bytes(bad[content] if isinstance(content, str) else pickle.dumps(content))
    with pytest.raises(FileError, match=rf"{path}|y_train has labels 0 to 99"):
        make_splits(spec(folder, sha256="0" * 64), seed=0)
    assert not (tmp_path / "ran").exists()


def test_published_pseudo_labels(trusted, tmp_path):
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, 40)
    content = {"data": images, "extrapolated_targets": labels, "prediction_model": "net", "epoch": 199}
    path = tmp_path / "pool.pickle"
    path.write_bytes(pickle.dumps(content))
    splits = make_splits(spec(trusted[0], unlabeled=30, pool=str(path)), seed=0)
    assert np.array_equal(splits["x_unlabeled"], images[:30].transpose(0, 3, 1, 2))
    assert np.array_equal(splits["pseudo_labels"], labels[:30])
    with pytest.raises(ConfigError, match=r"data\.unlabeled: pool 0-40 given, but .* pool 0-39"):
        make_splits(spec(trusted[0], unlabeled=41, pool=str(path)), seed=0)


def test_the_official_files_are_downloaded_once(tmp_path, monkeypatch):
    """And anew where the archive could not be had whole."""
    source, target = tmp_path / "cifar-10-batches-py", tmp_path / "target"
    source.mkdir()
    for name in CIFAR10_FILES:
        (source / name).write_text(name)
    trust(source, monkeypatch)
    calls = []

    def download(url, root, **checked):
        calls.append((url, checked["md5"]))
        if len(calls) == 1:
            raise RuntimeError("File not found or corrupted.")
        shutil.copytree(source, f"{root}/{source.name}")

    monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", download)
    with pytest.raises(FileError, match="cannot be downloaded"):
        download_cifar10(target)
    for _ in range(2):
        download_cifar10(target)
    assert calls == [(CIFAR10.url, CIFAR10.tgz_md5)] * 2
    assert {path.name: path.read_text() for path in target.iterdir()} == {n: n for n in CIFAR10_FILES}
