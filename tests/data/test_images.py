"""Images as others keep them: folders, and datasets of torchvision, in tiny files made here."""

import json
import pickle
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets
from typer.testing import CliRunner

from robust_flatness.cli import app
from robust_flatness.config import DataSpec, parse
from robust_flatness.data import make_splits
from robust_flatness.data.images import Part, open_parts
from robust_flatness.errors import ConfigError, FileError

CLASSES = ("cat", "dog", "emu")


def picture(path, value, size=(6, 6), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 10, 0)).save(path)


def folder(root, counts, **options):
    """`counts` images of each class below each part; the first value tells class and number."""
    for part, count in counts.items():
        for index, name in enumerate(CLASSES):
            for number in range(count):
                picture(root / part / name / f"{number}.png", 50 * index + number, **options)
    return root


def read(name, path, **options):
    parts = open_parts(name, path, **options)
    return {part: found.read() for part, found in parts.items()}


def test_a_folder_of_images_as_torchvision_reads_it(tmp_path):
    folder(tmp_path, {"train": 4, "val": 3})
    parts = open_parts("folder", tmp_path)
    assert parts["test"].classes == parts["train"].classes == [*CLASSES]
    images, labels = parts["train"].read()
    assert sorted((x[0, 0, 0], y) for x, y in zip(images, labels, strict=True)) == [
        (50 * y + number, y) for y in range(3) for number in range(4)
    ]
    assert not (np.diff(labels) >= 0).all()  # not class by class: the first ones are of all
    again = open_parts("folder", tmp_path)["train"].read()[1]
    assert np.array_equal(labels, again)


@pytest.mark.parametrize("labels", [[2] * 20 + [0] * 20 + [1] * 20, [1, 1, 1, 0] * 2 + [2] * 30 + [0] * 20])
def test_images_that_lie_class_by_class_in_whatever_order_are_mixed(labels):
    """As in Flowers102: the first ones would be of few classes."""
    part = Part(type("Flowers", (list,), {"targets": labels})(labels), "flowers", None)
    assert part.shuffled
    assert {*part.labels[part.order][:15]} == {0, 1, 2}


def test_labels_that_a_dataset_keeps_otherwise_are_those_of_its_pairs():
    """As in QMNIST, which keeps eight numbers for each image."""
    pairs = [(None, label) for label in (2, 0, 1)]
    found = Part(type("Wide", (list,), {"targets": np.zeros((3, 8), int)})(pairs), "wide", None)
    assert found.labels.tolist() == [2, 0, 1]


@pytest.mark.parametrize("label", [np.zeros(40, int), None, "cat", Image.new("L", (2, 2)), 0.5])
def test_datasets_without_a_class_for_each_image_are_refused(label):
    """As CelebA's attributes, or test images without labels."""
    with pytest.raises(FileError, match=r"faces: .*class"):
        _ = Part([(None, label)] * 2, "faces", None).labels


def test_videos_are_refused():
    with pytest.raises(FileError, match=r"videos: .*Tensor"):
        Part([(torch.zeros(3, 4, 4), 0), (torch.zeros(3, 4, 4), 1)], "videos", None).read()


def test_images_in_any_order_stay_in_it():
    labels = np.random.default_rng(0).integers(0, 3, 60).tolist()
    part = Part(type("Mixed", (list,), {"targets": labels})(labels), "mixed", None)
    assert part.order.tolist() == [*range(60)]


def test_without_train_and_test_all_are_test_images(tmp_path):
    folder(tmp_path, {"": 2})
    assert {*open_parts("folder", tmp_path)} == {"test"}


def test_images_are_scaled_by_their_shorter_side_and_cropped(tmp_path):
    folder(tmp_path, {"test": 1}, size=(12, 6))
    images, _ = read("folder", tmp_path, size=4)["test"]
    assert {x.shape for x in images} == {(4, 4, 3)}
    assert sorted(x[0, 0, 0] for x in images) == [0, 50, 100]


def spec(**given):
    return parse(DataSpec, {"train": 6, "early_stopping": 3, "test": 3} | given)


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_an_experiment_on_a_folder(tmp_path, mode, channels):
    folder(tmp_path, {"train": 4, "test": 2}, mode=mode)
    splits = make_splits(spec(name="folder", path=str(tmp_path)), 0)
    assert splits["x_train"].shape == (6, channels, 6, 6)
    assert splits["classes"] == 3
    for split in ("train", "test", "early_stopping"):
        assert np.array_equal(splits[f"x_{split}"][:, 0, 0, 0] // 50, splits[f"y_{split}"])


def test_grey_images_among_coloured_ones_get_three_channels(tmp_path):
    folder(tmp_path, {"train": 3, "test": 2})
    picture(tmp_path / "test/cat/0.png", 7, mode="L")
    assert make_splits(spec(name="folder", path=str(tmp_path)), 0)["x_test"].shape[1] == 3


def cifar10(root, count=20):
    """Tiny files in the form of CIFAR-10, and torchvision's checks for them switched off."""
    rng = np.random.default_rng(0)
    base = root / "cifar-10-batches-py"
    base.mkdir(parents=True)
    names = [name for name, _ in datasets.CIFAR10.train_list + datasets.CIFAR10.test_list]
    for name in names:
        data = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        (base / name).write_bytes(pickle.dumps({"data": data, "labels": rng.integers(0, 10, count).tolist()}))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": [f"class {i}" for i in range(10)]}))
    return base


@pytest.fixture
def unchecked(monkeypatch):
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *arguments: True)


def test_a_dataset_of_torchvision_in_its_own_order(tmp_path, unchecked):
    cifar10(tmp_path)
    images, labels = read("torchvision:CIFAR10", tmp_path)["test"]
    expected = datasets.CIFAR10(str(tmp_path), train=False)
    assert np.array_equal(np.stack(images), expected.data)
    assert labels.tolist() == expected.targets
    splits = make_splits(
        spec(
            name="torchvision:CIFAR10", path=str(tmp_path), train=100, early_stopping=5, test=10, classes=10
        ),
        0,
    )
    assert np.array_equal(splits["x_test"].transpose(0, 2, 3, 1), expected.data[:10])
    assert np.array_equal(splits["y_early_stopping"], expected.targets[-5:])


def test_one_with_splits_by_name(tmp_path):
    """SVHN keeps its arrays in MATLAB's form, and calls the parts by name."""
    from scipy.io import savemat

    for part in ("train", "test"):
        x = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 7), dtype=np.uint8)
        savemat(tmp_path / f"{part}_32x32.mat", {"X": x, "y": np.arange(1, 8)[:, None]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.SVHN, "_check_integrity", lambda self: True)
        images, labels = read("torchvision:SVHN", tmp_path)["train"]
    assert np.array_equal(sorted(labels), np.arange(1, 8))
    assert images[0].shape == (32, 32, 3)


def broken(tmp_path, case):
    root = tmp_path / case
    if case in ("sizes", "damaged", "classes", "deep", "sixteen"):
        folder(root, {"train": 3, "test": 2} if case != "deep" else {"train": 2})
    if case == "sizes":
        picture(root / "test/cat/9.png", 1, size=(7, 7))
    if case == "damaged":
        (root / "test/cat/0.png").write_bytes(b"no picture")
    if case == "classes":
        picture(root / "test/fox/0.png", 1)
    if case == "sixteen":
        Image.fromarray(np.full((6, 6), 4000, dtype=np.uint16)).save(root / "test/cat/0.png")
    if case == "empty":
        (root / "cat").mkdir(parents=True)
    return root


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("sizes", "images of 2 sizes .*set one by data.size"),
        ("damaged", r"0\.png: damaged, or no image"),
        ("classes", "classes fox are not in all of test, train"),
        ("deep", "train hold folders, not images"),
        ("sixteen", "mode I;16; expected 8 bits"),
        ("empty", "no folder of images"),
        ("missing", "no folder of images"),
    ],
)
def test_folders_that_cannot_be_used_are_named(tmp_path, case, words):
    with pytest.raises(FileError, match=words):
        make_splits(spec(name="folder", path=str(broken(tmp_path, case))), 0)


def test_without_training_images_there_is_no_experiment(tmp_path):
    with pytest.raises(FileError, match="no folder `train`"):
        make_splits(spec(name="folder", path=str(folder(tmp_path, {"": 9}))), 0)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("CIFAR10", r"test images of torchvision's CIFAR10 are not there .*--download"),
        ("SVHN", r"test images of torchvision's SVHN are not there"),
        ("CIFAR11", "has no dataset 'CIFAR11' .*did you mean 'CIFAR10"),
        ("FakeData", "has no dataset 'FakeData'"),
    ],
)
def test_datasets_that_are_not_there_are_named(tmp_path, name, words):
    with pytest.raises(FileError, match=words):
        open_parts(f"torchvision:{name}", tmp_path)


@pytest.mark.parametrize("name", ["torchvision:", "cifar", "folder/x"])
def test_names_of_data(name):
    with pytest.raises(ConfigError, match=r"name: Input should be .*'torchvision:NAME'"):
        spec(name=name, path="data")
    with pytest.raises(ConfigError, match="needs the path of its folder"):
        spec(name="torchvision:SVHN")


NETS = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(108, 3))
"""


def measured(tmp_path, monkeypatch, data, *options):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "nets_of_images.py").write_text(NETS)
    command = ["measure", "--model", "nets_of_images:net", "--data", data, "--epsilon", "0.1", "--steps", "1"]
    command += ["--measures", "robustness", "--restarts", "1", "--output", "out.json", *options]
    done = CliRunner().invoke(app, command)
    return done, json.loads((tmp_path / "out.json").read_text()) if done.exit_code == 0 else None


def test_measure_on_a_folder_says_which_class_got_which_index(tmp_path, monkeypatch):
    folder(tmp_path / "pictures", {"train": 4, "test": 5})
    done, found = measured(tmp_path, monkeypatch, "pictures", "--examples", "6", "--train-examples", "2")
    assert done.exit_code == 0, done.output
    assert found["images"]["classes"] == {"cat": 0, "dog": 1, "emu": 2}
    assert found["images"]["available"] == {"test": 15, "train": 12}
    assert found["images"]["order"] == dict.fromkeys(("test", "train"), "random (seed 0)")
    assert found["values"]["robust_test_examples"] == 6
    assert found["values"]["robust_train_examples"] == 2
    assert len(found["data_sha256"]) == 64
    assert "classes: 0 cat, 1 dog, 2 emu" in done.output + done.stderr


@pytest.mark.parametrize(
    ("data", "options", "words"),
    [
        ("torchvision:SVHN:nowhere", (), "are not there"),
        ("pictures", ("--examples", "99"), "99 given, but pictures has 3 test examples"),
        ("pictures", ("--train-examples", "1"), "1 given, but pictures has 0"),
        ("data.npz", ("--size", "3"), "--size, --download: given"),
    ],
)
def test_data_that_measure_cannot_use(tmp_path, monkeypatch, data, options, words):
    folder(tmp_path / "pictures", {"": 1})
    done, _ = measured(tmp_path, monkeypatch, data, *options)
    assert done.exit_code != 0
    assert words in str(done.exception)


def test_a_class_without_test_images_would_shift_the_others(tmp_path, monkeypatch):
    folder(tmp_path / "pictures", {"train": 2, "test": 2})
    for path in (tmp_path / "pictures/test/dog").iterdir():
        path.unlink()
    (tmp_path / "pictures/test/dog").rmdir()
    done, _ = measured(tmp_path, monkeypatch, "pictures")
    assert "classes dog are not in all of test, train" in str(done.exception)


@pytest.mark.parametrize("options", [("--output", "."), ("--per-example", "out.json")])
def test_files_that_cannot_be_written_are_refused_before_anything_is_measured(tmp_path, monkeypatch, options):
    done, _ = measured(tmp_path, monkeypatch, "nothing.npz", *options)
    assert f"{options[0]}: {options[1]} given" in str(done.exception)


def test_underscores_hide_nothing(tmp_path):
    folder(tmp_path, {"": 3})
    picture(tmp_path / "__background__/__0.png", 9)
    assert [len(x) for x, _ in read("folder", tmp_path).values()] == [10]


def test_what_lies_beside_the_classes_is_left_out_and_named(tmp_path, monkeypatch):
    folder(tmp_path / "plain", {"": 3})
    folder(tmp_path / "pictures", {"": 3})
    for place in (
        ".ipynb_checkpoints/0.png",
        "__MACOSX/0.png",
        "cat/.ipynb_checkpoints/0.png",
        "dog/._0.png",
    ):
        picture(tmp_path / "pictures" / place, 9)
    (tmp_path / "pictures/__MACOSX/deeper").mkdir()
    _, plain = measured(tmp_path, monkeypatch, "plain")
    done, found = measured(tmp_path, monkeypatch, "pictures")
    assert done.exit_code == 0, done.exception
    assert found["values"] == plain["values"]
    assert found["images"]["classes"] == plain["images"]["classes"]
    told = [warning for warning in found["warnings"] if "left out" in warning]
    assert told == ["pictures: .ipynb_checkpoints, __MACOSX left out, as hidden folders are"]
    assert told[0] in done.stderr


def test_classes_that_differ_only_in_case_are_named(tmp_path, monkeypatch):
    for name in ("a", "A", "b"):
        picture(tmp_path / "pictures" / name / "0.png", 50)
    _, found = measured(tmp_path, monkeypatch, "pictures")
    assert found["images"]["classes"] == {"A": 0, "a": 1, "b": 2}
    assert "pictures: A, a differ only in case, and are a class each" in found["warnings"]


@pytest.mark.parametrize(("lowest", "said"), [(254, True), (255, False)])
def test_transparency_that_counts_is_told(tmp_path, monkeypatch, lowest, said):
    folder(tmp_path / "pictures", {"": 2})
    see_through = np.full((6, 6, 4), 255, np.uint8)
    see_through[0, 0, 3] = lowest
    Image.fromarray(see_through).save(tmp_path / "pictures/cat/0.png")
    _, found = measured(tmp_path, monkeypatch, "pictures")
    assert any("transparent" in warning for warning in found["warnings"]) == said


@pytest.mark.parametrize(("opaque", "said"), [(30, True), (3, False)])
def test_a_fourth_channel_that_looks_like_transparency_is_told(tmp_path, opaque, said):
    x = np.random.default_rng(0).integers(0, 255, (4, 4, 6, 6), dtype=np.uint8)
    x[:, 3].reshape(4, 36)[:, :opaque] = 255
    np.savez(tmp_path / "four.npz", x_train=x, y_train=[0, 1] * 2, x_test=x, y_test=[0, 1] * 2)
    given = {"name": "npz", "path": str(tmp_path / "four.npz"), "train": 4, "early_stopping": 2, "test": 2}
    done = CliRunner().invoke(
        app, ["prepare", "--spec", json.dumps(given), "--output", str(tmp_path / "out.npz")]
    )
    assert done.exit_code == 0, done.exception
    assert ("warning: " in done.stderr and "as transparency has" in done.stderr) == said


def test_a_single_example_is_measured(tmp_path, monkeypatch):
    np.savez(tmp_path / "data.npz", x_test=np.full((1, 3, 6, 6), 200, np.uint8), y_test=[1])
    done, found = measured(tmp_path, monkeypatch, "data.npz")
    assert done.exit_code == 0, done.exception
    assert len(found["examples"]["test"]["label"]) == 1


def test_whole_numbers_on_a_scale_of_their_own(tmp_path, monkeypatch):
    x = np.random.default_rng(0).integers(0, 17, (6, 3, 6, 6))
    np.savez(tmp_path / "floats.npz", x_test=x.astype(float), y_test=[0, 1, 2] * 2)
    done, _ = measured(tmp_path, monkeypatch, "floats.npz")
    assert "of 255, or of 16?" in str(done.exception)
    np.savez(tmp_path / "bytes.npz", x_test=x.astype(np.uint8), y_test=[0, 1, 2] * 2)
    _, found = measured(tmp_path, monkeypatch, "bytes.npz")
    assert any("no value is above 16 of 255" in warning for warning in found["warnings"])
