"""Checkpoints come back bit for bit, or not at all."""

import random
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from robust_flatness.architectures import build_model
from robust_flatness.checkpoints import KEY, Metadata, load_checkpoint, save_checkpoint
from robust_flatness.config import ModelSpec
from robust_flatness.errors import ConfigError, FileError
from robust_flatness.seeding import generator

SPEC = ModelSpec(name="small-resnet", width=2)
FAULTS = 200


def network(seed=0, spec=SPEC):
    return build_model(spec, 3, (0.5,), (0.25,), generator(seed, "test"))


def metadata():
    return Metadata(SPEC.model_dump(mode="json"), 3, (0.5,), (0.25,), "at", 0, 4)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, network(), metadata())
    return path


def test_weights_buffers_and_metadata_come_back_bit_for_bit(saved):
    model = network()
    loaded = load_checkpoint(saved)
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], tensor)
    assert not loaded.model.training
    found = loaded.metadata
    assert replace(found, sha256="", mean=tuple(found.mean), std=tuple(found.std)) == metadata()
    x = torch.rand(4, 1, 8, 8)
    assert torch.equal(loaded.model(x), model.eval()(x))


def test_flipped_bits_and_truncations_are_found_wherever_they_are(saved, tmp_path):
    """Every bit of the file has a meaning but the blanks that pad the header."""
    rng, whole, path = random.Random(0), saved.read_bytes(), tmp_path / "damaged.safetensors"
    header = 8 + int.from_bytes(whole[:8], "little")
    # half of the flips go into the header, the small part where parsing could go astray
    places = [rng.randrange(end) for end in (header, len(whole)) for _ in range(FAULTS)]
    flipped = [(place, 1 << rng.randrange(8)) for place in places if whole[place : place + 1] != b" "]
    damaged = [whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :] for place, bit in flipped]
    damaged += [whole[:length] for length in (0, 7, 8, header, len(whole) - 1)] + [whole + b"\0"]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(FileError, match=str(path)):
            load_checkpoint(path)


@pytest.mark.parametrize("text", ["", "null", "{}", "{", '{"model": 1, "x": 2}'])
def test_unknown_metadata_is_refused(saved, tmp_path, text):
    path = tmp_path / "altered.safetensors"
    save_file(load_file(saved), path, {KEY: text})
    with pytest.raises(FileError, match=str(path)):
        load_checkpoint(path)


def test_another_architecture_and_a_changed_weight_are_refused(saved, tmp_path):
    path = tmp_path / "wide.safetensors"
    save_checkpoint(path, network(spec=ModelSpec(name="small-resnet", width=4)), metadata())
    with pytest.raises(ConfigError, match="another architecture"):
        load_checkpoint(path)
    tensors = load_file(saved)
    tensors["classifier.weight"][0, 0] += 1
    with safe_open(saved, framework="pt") as file:
        save_file(tensors, path, file.metadata())
    with pytest.raises(FileError, match="checksum does not match"):
        load_checkpoint(path)
