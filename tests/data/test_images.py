"""Folders of images and datasets of torchvision, in tiny files made here."""

import re

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from robust_flatness.config import DataSpec, parse
from robust_flatness.data import make_splits
from robust_flatness.data.images import Part, open_parts
from robust_flatness.errors import FileError, MeasurementWarning

CLASSES = ("cat", "dog", "emu")


def picture(path, value, size=(6, 6), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 10, 0)).save(path)


def folder(root, counts, **options):
    """Write `counts` images of each class below each part; the first value encodes class and number."""
    for part, count in counts.items():
        for index, name in enumerate(CLASSES):
            for number in range(count):
                picture(root / part / name / f"{number}.png", 50 * index + number, **options)
    return root


def spec(**given):
    return parse(DataSpec, {"train": 6, "early_stopping": 3, "test": 3} | given)


def test_a_folder_is_read_as_torchvision_reads_it_in_a_fixed_random_order(tmp_path):
    folder(tmp_path, {"train": 4, "val": 3})
    parts = open_parts("folder", tmp_path)
    assert parts["test"].classes == parts["train"].classes == [*CLASSES]
    images, labels = parts["train"].read()
    found = sorted((x[0, 0, 0], y) for x, y in zip(images, labels, strict=True))
    assert found == [(50 * y + number, y) for y in range(3) for number in range(4)]
    assert not (np.diff(labels) >= 0).all()
    assert np.array_equal(labels, open_parts("folder", tmp_path)["train"].read()[1])


def test_images_sorted_by_class_are_shuffled_and_those_in_random_order_are_not():
    """As in Flowers102: the first ones would be of few classes."""
    sorted_by_class, mixed = np.repeat([2, 0, 1], 20), np.random.default_rng(0).integers(0, 3, 60)
    flowers, others = (
        Part(type("Flowers", (list,), {"targets": labels})(labels), "flowers", None)
        for labels in (sorted_by_class, mixed)
    )
    assert {*flowers.labels[flowers.order][:15]} == {0, 1, 2}
    assert others.order.tolist() == [*range(60)]


def test_without_train_and_test_all_are_test_images(tmp_path):
    folder(tmp_path, {"": 2})
    assert {*open_parts("folder", tmp_path)} == {"test"}
    with pytest.raises(FileError, match="no folder `train`"):
        make_splits(spec(name="folder", path=str(tmp_path)), 0)


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_splits_of_a_folder(tmp_path, mode, channels):
    folder(tmp_path, {"train": 4, "test": 2}, mode=mode)
    splits = make_splits(spec(name="folder", path=str(tmp_path)), 0)
    assert splits["x_train"].shape == (6, channels, 6, 6)
    assert splits["classes"] == 3
    for split in ("train", "test", "early_stopping"):
        assert np.array_equal(splits[f"x_{split}"][:, 0, 0, 0] // 50, splits[f"y_{split}"])


def test_a_dataset_of_torchvision_in_its_own_order(monkeypatch):
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (2, 120, 6, 6, 3), dtype=np.uint8), rng.integers(0, 10, (2, 120))

    class CIFAR10(list):
        def __init__(self, root, train):
            self.targets = labels[int(train)].tolist()
            super().__init__((Image.fromarray(x), None) for x in pixels[int(train)])

    monkeypatch.setattr(datasets, "CIFAR10", CIFAR10)
    sizes = {"train": 100, "early_stopping": 5, "test": 10, "classes": 10}
    splits = make_splits(spec(name="torchvision:CIFAR10", path="data", **sizes), 0)
    assert np.array_equal(splits["x_test"].transpose(0, 2, 3, 1), pixels[0, :10])
    assert np.array_equal(splits["y_early_stopping"], labels[0, -5:])
    assert set(map(bytes, splits["x_train"].transpose(0, 2, 3, 1))) < set(map(bytes, pixels[1]))


def test_a_dataset_of_torchvision_with_arguments(tmp_path, monkeypatch):
    """EMNIST has a split by name beside training and test images."""
    calls = []

    class EMNIST(datasets.EMNIST):
        classes = ("a", "b")

        def __init__(self, root, split, **kwargs):
            calls.append((split, kwargs))

    monkeypatch.setattr(datasets, "EMNIST", EMNIST)
    open_parts("torchvision:EMNIST[split=letters]", tmp_path)
    assert calls == [("letters", {"train": False}), ("letters", {"train": True})]
    assert spec(name="torchvision:EMNIST[split=letters]", path="data").path == "data"


def test_hidden_folders_and_other_files_are_left_out_with_a_warning(tmp_path):
    folder(tmp_path, {"": 3})
    picture(tmp_path / "__background__/__0.png", 9)
    for place in (".ipynb_checkpoints/0.png", "__MACOSX/deeper/0.png", "dog/._0.png"):
        picture(tmp_path / place, 9)
    (tmp_path / "cat/0.gif").write_bytes(b"")
    with pytest.warns(MeasurementWarning, match=r"4 files left out \(.gif, .png\), such as") as caught:
        parts = open_parts("folder", tmp_path)
    assert len(caught) == 1
    assert parts["test"].classes == ["__background__", *CLASSES]
    assert len(parts["test"].labels) == 10


def broken(root, case):
    first = folder(root, {"train": 3, "test": 2}) / "test/cat/0.png"
    if case == "sizes":
        picture(first, 1, size=(7, 7))
    if case == "damaged":
        first.write_bytes(b"no picture")
    if case == "classes":
        picture(root / "test/fox/0.png", 1)
    if case == "sixteen":
        Image.fromarray(np.full((6, 6), 4000, dtype=np.uint16)).save(first)
    return root / "nowhere" if case == "missing" else root


@pytest.mark.parametrize("case", ["sizes", "damaged", "classes", "sixteen", "missing"])
def test_unusable_folders_are_refused(tmp_path, case):
    with pytest.raises(FileError, match="folder: image 0 has mode" if case == "sixteen" else str(tmp_path)):
        make_splits(spec(name="folder", path=str(broken(tmp_path, case))), 0)


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR11", "FakeData", "CIFAR-10", "EMNIST[split=a, x=1]"])
def test_missing_datasets_of_torchvision_are_named(tmp_path, name):
    with pytest.raises(FileError, match=re.escape(name)):
        open_parts(f"torchvision:{name}", tmp_path)
