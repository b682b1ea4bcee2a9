"""Checkpoints come back bit for bit, or not at all."""

import random
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from robust_flatness.architectures import build_model
from robust_flatness.checkpoints import KEY, Metadata, load_checkpoint, save_checkpoint
from robust_flatness.config import ModelSpec
from robust_flatness.errors import FileError
from robust_flatness.seeding import generator

SPEC = ModelSpec(name="small-resnet", width=2)
FAULTS = 1000


def network(seed=0, spec=SPEC):
    return build_model(spec, 3, (0.5,), (0.25,), generator(seed, "test"))


def metadata(**changed):
    values = {
        "model": SPEC.model_dump(mode="json"),
        "classes": 3,
        "mean": (0.5,),
        "std": (0.25,),
        "variant": "at",
        "seed": 0,
        "epoch": 4,
    }
    return Metadata(**(values | changed))


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, network(), metadata())
    return path


def test_weights_and_buffers_come_back_bit_for_bit(saved):
    model = network()
    loaded = load_checkpoint(saved)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor)
    assert not loaded.model.training
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(loaded.model(x), model.eval()(x))


def test_metadata_comes_back(saved, tmp_path):
    found = load_checkpoint(saved).metadata
    assert replace(found, sha256="", mean=tuple(found.mean), std=tuple(found.std)) == metadata()
    save_checkpoint(tmp_path / "clipped.safetensors", network(), metadata(weight_bound=0.01))
    assert load_checkpoint(tmp_path / "clipped.safetensors").metadata.weight_bound == 0.01


def test_equal_models_give_equal_bytes(saved, tmp_path):
    for index in range(5):
        save_checkpoint(tmp_path / f"{index}.safetensors", network(), metadata())
        assert (tmp_path / f"{index}.safetensors").read_bytes() == saved.read_bytes()


def test_checksum_covers_weights_buffers_and_metadata(saved, tmp_path):
    model = network()
    with torch.no_grad():
        model.stem_norm.running_var[0] += 1e-6
    variations = {
        "seed": (network(1), metadata()),
        "buffer": (model, metadata()),
        "epoch": (network(), metadata(epoch=5)),
        "bound": (network(), metadata(weight_bound=0.1)),
    }
    sums = {load_checkpoint(saved).metadata.sha256}
    for name, (changed, described) in variations.items():
        path = tmp_path / f"{name}.safetensors"
        save_checkpoint(path, changed, described)
        sums.add(load_checkpoint(path).metadata.sha256)
    assert len(sums) == 5


def test_flipped_bits_are_found_wherever_they_are(saved, tmp_path):
    """Every bit of the file has a meaning but the blanks that pad the header."""
    rng, whole, path = random.Random(0), saved.read_bytes(), tmp_path / "damaged.safetensors"
    header = 8 + int.from_bytes(whole[:8], "little")
    # half of the flips go into the header, the small part where parsing could go astray
    places = [rng.randrange(header) for _ in range(FAULTS)] + [
        rng.randrange(len(whole)) for _ in range(FAULTS)
    ]
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        if whole[place : place + 1] == b" ":
            continue
        with pytest.raises(FileError, match=str(path)):
            load_checkpoint(path)


def test_truncated_files_are_refused(saved, tmp_path):
    rng, whole, path = random.Random(1), saved.read_bytes(), tmp_path / "damaged.safetensors"
    for length in [0, 7, 8, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(40))]:
        path.write_bytes(whole[:length])
        with pytest.raises(FileError, match=str(path)):
            load_checkpoint(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(FileError, match=str(path)):
        load_checkpoint(path)


def altered(saved, path, tensors=None, text=None):
    from safetensors import safe_open

    with safe_open(saved, framework="pt") as file:
        known = file.metadata()
    save_file(tensors or load_file(saved), path, {KEY: text} if text is not None else known)
    return path


def test_a_changed_weight_in_a_well_formed_file_is_found(saved, tmp_path):
    tensors = load_file(saved)
    tensors["classifier.weight"][0, 0] += 1
    path = altered(saved, tmp_path / "altered.safetensors", tensors)
    with pytest.raises(FileError, match="checksum does not match"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "text", ["", "null", "[]", "{}", "{", '"x"', '{"model": {}}', '{"model": 1, "x": 2}']
)
def test_unknown_metadata_is_refused(saved, tmp_path, text):
    path = altered(saved, tmp_path / "altered.safetensors", text=text)
    with pytest.raises(FileError, match="damaged, or not written by this kit"):
        load_checkpoint(path)


def test_another_architecture_is_named(tmp_path):
    path = tmp_path / "wide.safetensors"
    wide = network(spec=ModelSpec(name="small-resnet", width=4))
    save_checkpoint(path, wide, metadata())
    with pytest.raises(FileError, match="another architecture") as error:
        load_checkpoint(path)
    assert "expected (" in str(error.value)
    assert "found (" in str(error.value)


def test_pickled_weights_are_refused_and_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "exploded"), "w"))

    path = tmp_path / "bomb.safetensors"
    torch.save({"weights": Bomb()}, path)
    with pytest.raises(FileError, match=str(path)):
        load_checkpoint(path)
    assert not (tmp_path / "exploded").exists()


def test_loading_leaves_torchs_global_randomness_alone(saved):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    load_checkpoint(saved)
    assert torch.equal(torch.get_rng_state(), before)
