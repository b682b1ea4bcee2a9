import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from robust_flatness import load_model
from robust_flatness.errors import ConfigError
from robust_flatness.weights import load_weights, read_weights


def network():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "layers_here.py").write_text("from torch import nn\nlayer = nn.Flatten\n")
    (tmp_path / "nets_here.py").write_text(
        "from torch import nn\n"
        "def net():\n"
        "    from layers_here import layer\n"
        "    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), layer(), nn.Linear(144, 3))\n"
        "def broken():\n    raise KeyError('no such setting')\n"
        "one = nn.Linear(2, 2)\n"
        "def ending():\n    raise SystemExit(3)\n"
    )
    return tmp_path


def saved(path, tensors):
    save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
    return path


FORMS = {
    "plain.safetensors": lambda t: t,
    "plain.pt": lambda t: t,
    "model.pt": lambda t: {"model": {"state_dict": t}},
    "parallel.pt": lambda t: {f"module.{name}": value for name, value in t.items()},
    "compiled.pt": lambda t: {f"_orig_mod.module.{name}": value for name, value in t.items()},
    "average.pt": lambda t: {"n_averaged": torch.tensor(2), **{f"module.{n}": v for n, v in t.items()}},
    "half.safetensors": lambda t: {n: v.bfloat16().float() for n, v in t.items()},
    "part.pt": lambda t: {n.replace(".", ".module.", 1): v for n, v in t.items()},
    "beside.pt": lambda t: {"criterion.weight": torch.ones(3), **{f"a.b.{n}": v for n, v in t.items()}},
    "old.pt": lambda t: {n: v for n, v in t.items() if "num_batches" not in n},
}


@pytest.mark.parametrize("form", FORMS)
def test_weights_of_many_forms(folder, form):
    torch.manual_seed(0)
    source = network().eval()
    path = saved(folder / form, FORMS[form](source.state_dict()))
    model = load_model("nets_here:net", path)
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(model(x), source(x), rtol=0.02, atol=0.02)
    assert not any(module.training for module in model.modules())


def test_one_of_several_sets_of_weights_is_named(folder):
    tensors = network().state_dict().items()
    weights, averaged = ({n: torch.full_like(t, k) for n, t in tensors} for k in (1, 2))
    flat = {f"{key}.{n}": t for key, sets in (("net", weights), ("ema", averaged)) for n, t in sets.items()}
    saved(folder / "flat.pt", flat)
    saved(folder / "nested.pt", {"net": weights, "ema": averaged, "optimizer": {"lr": 0.1}})
    for file in ("flat.pt", "nested.pt"):
        with pytest.raises(ConfigError, match=rf"{file} holds.*(net, ema|ema, net); name one, as in {file}:"):
            load_model("nets_here:net", folder / file)
        for key, value in (("net", 1), ("ema", 2)):
            parameters = load_model("nets_here:net", f"{folder / file}:{key}").parameters()
            assert all((p == value).all() for p in parameters)
        with pytest.raises(ConfigError, match="no weights at 'other'"):
            load_model("nets_here:net", f"{folder / file}:other")


def test_sets_of_weights_are_found_at_any_depth(folder):
    state = network().state_dict()
    plain, other = ({n: torch.full_like(t, k) for n, t in state.items()} for k in (1, 2))
    below = {f"ema.{n}": t for n, t in other.items()}
    for content, keys in (
        ({"model": plain, "ema": {"decay": 0.9, "module": other}}, ("model", "ema")),
        ({"ema": other, "model": {"epoch": 1, "state_dict": plain}}, ("model.state_dict", "ema")),
        ({"state_dict": {f"net.{n}": t for n, t in plain.items()} | below}, ("net", "state_dict.ema")),
        (plain | below, (".", "ema")),
        (plain | {f"module.{n}": t for n, t in other.items()}, (".", "module")),
    ):
        path = saved(folder / "w.pt", content)
        with pytest.raises(ConfigError, match="holds several sets of weights: "):
            load_model("nets_here:net", path)
        for value, key in enumerate(keys, start=1):
            assert (load_model("nets_here:net", f"{path}:{key}")[3].bias == value).all()


@pytest.mark.parametrize("wrap", [nn.DataParallel, torch.compile])
def test_wrappers_of_the_network_are_ignored(tmp_path, wrap):
    source, model = network(), wrap(network())
    load_weights(model, {"": source.state_dict()}, tmp_path / "w.pt")
    assert torch.equal(next(model.parameters()), source[0].weight)


class Negated(nn.Linear):
    """A layer whose files of version 1 hold the negated weight."""

    _version = 2

    def _load_from_state_dict(self, state, prefix, metadata, *rest):
        if (metadata.get("version") or 1) < 2:
            state[f"{prefix}weight"] *= -1  # in place
        super()._load_from_state_dict(state, prefix, metadata, *rest)


def test_weights_are_converted_by_the_versions_of_the_file(tmp_path, monkeypatch):
    states = {}
    for version in (2, 1):
        monkeypatch.setattr(Negated, "_version", version)
        states[version] = nn.Sequential(Negated(2, 2)).state_dict()
    monkeypatch.setattr(Negated, "_version", 2)
    for (version, state), sign in zip(states.items(), (1, -1), strict=True):
        model = nn.Sequential(Negated(2, 2))
        load_weights(model, read_weights(saved(tmp_path / f"v{version}.pt", state)), tmp_path / "file.pt")
        assert torch.equal(model[0].weight, sign * state["0.weight"])
        for tensors in (state, {f"net.{name}": tensor for name, tensor in state.items()}):
            load_weights(model, {"": tensors}, tmp_path / "file.safetensors")
            assert torch.equal(model[0].weight, state["0.weight"])


@pytest.mark.parametrize("model", [
    "nets_here", "nothing_here:net", "nets_here:nothing", "nets_here:broken", "nets_here:ending",
    "nets_here:one", "torchvision:resnet19", "robustbench:Carmon2019Unlabeled",
])  # fmt: skip
def test_networks_that_cannot_be_made_are_named(folder, model):
    with pytest.raises(ConfigError, match=model.partition(":")[0]):
        load_model(model, saved(folder / "w.pt", network().state_dict()))


def test_files_that_are_no_weights_are_named(folder):
    for name in ("text.txt", "damaged.pt", "damaged.safetensors"):
        (folder / name).write_bytes(b"nothing")
    torch.save(network(), folder / "module.pt")
    torch.save([1], folder / "list.pt")
    (folder / "folder.pt").mkdir()
    (folder / "cut.pt").write_bytes((folder / "module.pt").read_bytes()[:-300])
    torch.save({"epoch": 3}, folder / "other.pt")
    torch.save({"0.weight": torch.ones(4, 1, 3, 3).to_sparse()}, folder / "sparse.pt")
    torch.save(nn.Linear(2, 2).state_dict(), folder / "architecture.pt")
    files = [path.name for path in folder.iterdir() if path.suffix in (".pt", ".txt", ".safetensors")]
    assert len(files) == 10
    for name in [*files, "missing.pt"]:
        with pytest.raises(ConfigError, match=name):
            load_model("nets_here:net", folder / name)


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])  # whose tensors lie in an order of their own
def test_classifiers_of_torchvision(tmp_path, name, ending):
    from torchvision import models

    torch.manual_seed(0)
    source = models.get_model(name, weights=None, num_classes=10).eval()
    path = saved(tmp_path / f"w{ending}", {f"module.{n}": t.clone() for n, t in source.state_dict().items()})
    x = torch.rand(2, 3, 64, 64)
    assert torch.equal(load_model(f"torchvision:{name}", path)(x), source(x))


def test_one_of_two_networks_in_a_file_is_named(tmp_path):
    """They have different numbers of classes."""
    from torchvision import models

    nets = {f"net{n}": models.get_model("squeezenet1_1", weights=None, num_classes=n) for n in (7, 10)}
    path = saved(tmp_path / "w.pt", {name: net.state_dict() for name, net in nets.items()})
    x = torch.rand(2, 3, 64, 64)
    for name, net in nets.items():
        assert torch.equal(load_model("torchvision:squeezenet1_1", f"{path}:{name}")(x), net.eval()(x))
    with pytest.raises(ConfigError, match="FILE:KEY"):
        load_model("torchvision:squeezenet1_1", path)
