"""CIFAR-10 in the official format: reading, refusing altered files and pickles with code, downloading."""

import hashlib
import http.server
import io
import os
import pickle
import shutil
import tarfile
import threading

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from robust_flatness.config import ConfigError, DataSpec, parse
from robust_flatness.config.data import CIFAR10_FILES
from robust_flatness.data import make_splits, save_dataset
from robust_flatness.data.cifar10 import download_cifar10, read_pool
from robust_flatness.data.dataset import checksum
from robust_flatness.errors import FileError

RANGES = {
    "train": ["train 0-99", "train 20000-20049"],
    "early_stopping": ["train 10000-10019"],
    "test": ["test 5-24"],
    "unlabeled": ["train 49990-49999"],
}

SIZES = {"train": 4001, "early_stopping": 10, "test": 10, "unlabeled": 0}


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
    splits = make_splits(spec(folder.parent), seed=0)
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


def test_smaller_images_are_means_of_squares(trusted):
    folder, images, _ = trusted
    small = make_splits(spec(folder, size=16), seed=0)["x_test"]
    assert small.shape == (20, 3, 16, 16)
    assert small.dtype == np.uint8
    whole = images[50_005:50_025].astype(float)
    exact = sum(whole[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)) / 4
    assert np.abs(small - exact).max() <= 0.5


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"test": ["test 0-10000"]}, ["test", "test 0-10000", "test 0-9999"]),
        ({"train": ["train 50000"]}, ["train 50000-50000", "train 0-49999"]),
        ({"train": ["train 9-5"]}, ["data.train", "train 9-5", "ends before it begins"]),
        ({"train": ["trian 0-5"]}, ["data.train", "trian 0-5", "train, test, pool"]),
        ({"train": ["train 0-10000"]}, ["train 10000-10019", "train 0-10000", "in common"]),
        ({"train": []}, ["data.train", "at least 1"]),
        ({"train": ["pool 0-5"]}, ["pool 0-5", "unlabeled"]),
        ({"size": 15}, ["size", "15", "32"]),
        ({"train": 50_001}, ["train", "50001", "50000"]),
        ({"sha256": "12"}, ["data.sha256"]),
        ({"name": "digits", "path": None}, ["digits", "no official order"]),
        ({"name": "fashion", "path": None, **SIZES}, ["train + unlabeled = 4001", "4000 training images"]),
        ({"name": "fashion"}, ["path", "nowhere", "'fashion' has none"]),
    ],
)
def test_settings_are_checked_without_reading_the_files(changes, words):
    with pytest.raises(ConfigError) as error:
        parse(DataSpec, {"name": "cifar10", "path": "nowhere", **RANGES, **changes}, "data")
    assert all(word in str(error.value) for word in words), error.value


def test_ranges_are_written_as_text_and_read_back():
    chosen = DataSpec(name="cifar10", **(RANGES | {"test": "test 3 - 7, test 9"}))
    assert chosen.test == ("test 3-7", "test 9-9")
    assert chosen.count("test") == 6
    assert chosen.count("train") == 150
    assert DataSpec.model_validate_json(chosen.json_text()) == chosen


def test_other_files_need_the_checksum_of_their_splits(official):
    folder, _, _ = official
    with pytest.raises(FileError, match=r"data_batch_1: truncated or altered.*data\.sha256"):
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


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("truncated", ["truncated or damaged"]),
        ("bomb", ["mkdir", "no code was run"]),
        ({"data": np.zeros((9_999, 3072), np.uint8), "labels": [0] * 9_999}, ["(9999, 3072)", "10000"]),
        ({"data": np.zeros((10_000, 3072), np.uint8), "fine_labels": [0] * 10_000}, ["'labels'", "10000"]),
        ({"data": np.zeros((10_000, 3072), np.uint8), "labels": [0, 99] * 5_000}, ["0 to 99", "0 to 9"]),
        ([1, 2], ["list", "mapping"]),
    ],
)
def test_damaged_files_and_pickles_with_code_are_refused(official, tmp_path, content, words):
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in CIFAR10_FILES:
        (folder / name).symlink_to(official[0] / name)
    path = folder / "data_batch_3"
    whole = path.read_bytes()
    path.unlink()
    bad = {"truncated": whole[:-5000], "bomb": pickle.dumps({"data": Bomb(tmp_path / "ran")})}
    path.write_bytes(bad[content] if isinstance(content, str) else pickle.dumps(content))
    with pytest.raises(FileError) as error:
        make_splits(spec(folder, sha256="0" * 64), seed=0)
    assert all(word in str(error.value) for word in [str(path), *words]), error.value
    assert not (tmp_path / "ran").exists()


def test_missing_files_are_named_with_alternatives(official, tmp_path):
    with pytest.raises(FileError, match=r"data_batch_1.* missing.*folder with the official files.*npz"):
        make_splits(spec(tmp_path), seed=0)
    (tmp_path / "data_batch_1").symlink_to(official[0] / "data_batch_1")
    with pytest.raises(FileError, match=r"data_batch_2, .*test_batch missing"):
        make_splits(spec(tmp_path), seed=0)


def test_published_pseudo_labels(trusted, tmp_path):
    """A pickle in the published form, with its head or ranges of it, and one that would run code."""
    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8), rng.integers(0, 10, 40)
    content = {"data": images, "extrapolated_targets": labels, "prediction_model": "net", "epoch": 199}
    path = tmp_path / "pool.pickle"
    path.write_bytes(pickle.dumps(content))
    for wanted, index in ((30, slice(30)), (["pool 3-9"], slice(3, 10))):
        splits = make_splits(spec(trusted[0], unlabeled=wanted, pool=str(path)), seed=0)
        assert np.array_equal(splits["x_unlabeled"], images[index].transpose(0, 3, 1, 2))
        assert np.array_equal(splits["pseudo_labels"], labels[index])
    with pytest.raises(ConfigError, match=r"41 examples requested.*40"):
        make_splits(spec(trusted[0], unlabeled=41, pool=str(path)), seed=0)
    with pytest.raises(ConfigError, match="pool 0-40 requested, but CIFAR-10 has pool 0-39"):
        make_splits(spec(trusted[0], unlabeled=["pool 0-40"], pool=str(path)), seed=0)
    path.write_bytes(pickle.dumps(content | {"another": Bomb(tmp_path / "ran")}))
    with pytest.raises(FileError, match=r"mkdir.*no code was run"):
        read_pool(path)
    assert not (tmp_path / "ran").exists()


def test_a_full_disk_is_reported_before_anything_is_written(trusted, tmp_path, monkeypatch):
    splits = make_splits(spec(trusted[0]), seed=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(ConfigError, match=r"the dataset needs 1 MB of disk, and 0 MB are free"):
        save_dataset(tmp_path / "data.safetensors", splits)
    with pytest.raises(ConfigError, match=r"CIFAR-10 needs 360 MB of disk"):
        download_cifar10(tmp_path / "new")
    assert not list(tmp_path.glob("**/*.safetensors"))


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of an archive with small files: the files' folder, and the requests made."""
    folder, archive, requests = tmp_path / "cifar-10-batches-py", io.BytesIO(), []
    folder.mkdir()
    for name in CIFAR10_FILES:
        (folder / name).write_text(name)
    trust(folder, monkeypatch)
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.add(folder, folder.name)
    content = archive.getvalue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        monkeypatch.setattr(CIFAR10, "url", f"http://127.0.0.1:{running.server_port}/cifar.tar.gz")
        monkeypatch.setattr(CIFAR10, "tgz_md5", hashlib.md5(content).hexdigest())
        monkeypatch.setenv("no_proxy", "*")
        yield folder, requests
        running.shutdown()


def test_the_official_files_are_downloaded_once(server, tmp_path):
    folder, requests = server
    target = tmp_path / "target"
    download_cifar10(target)
    assert sorted(path.name for path in target.iterdir()) == sorted(CIFAR10_FILES)
    assert all((target / name).read_bytes() == (folder / name).read_bytes() for name in CIFAR10_FILES)
    count = len(requests)
    download_cifar10(target)
    assert len(requests) == count


def test_an_altered_archive_is_refused_and_alternatives_are_named(server, tmp_path, monkeypatch):
    monkeypatch.setattr(CIFAR10, "tgz_md5", "0" * 32)
    with pytest.raises(FileError, match=r"cannot be downloaded.*folder with the official files.*npz"):
        download_cifar10(tmp_path / "target")
    assert not (tmp_path / "target" / CIFAR10_FILES[0]).exists()
