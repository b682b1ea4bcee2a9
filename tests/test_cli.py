"""The command line: bad input ends with one message and exit status 1, before any long work."""

import json
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from robust_flatness.models import build_model
from robust_flatness.models.checkpoint import Metadata, save_checkpoint
from safetensors.torch import save_file
from typer.main import get_command
from typer.testing import CliRunner

from robust_flatness import cli
from robust_flatness.config import DataSpec, ModelSpec, load_yaml
from robust_flatness.data import load_dataset, make_splits, save_dataset
from robust_flatness.experiment import load_experiment
from robust_flatness.seeding import generator
from robust_flatness.tables.rows import read_rows

ROOT = Path(__file__).parents[1]
COMMANDS = sorted(
    command.name or command.callback.__name__.replace("_", "-") for command in cli.app.registered_commands
)
NETS = """
import torch
from torch import nn

def good():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

def few():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 2))

def flat():
    return nn.Sequential(nn.Flatten(0), nn.Linear(64 * 2, 3))

def images():
    return nn.Identity()

def other_size():
    return nn.Sequential(nn.Flatten(), nn.Linear(100, 3))

def not_a_number():
    net = good()
    with torch.no_grad():
        net[1].weight.fill_(float("nan"))
    return net

def pair():
    class Pair(nn.Module):
        def forward(self, x):
            return x.flatten(1), x
    return Pair()

def two_inputs():
    class TwoInputs(nn.Module):
        def forward(self, x, y):
            return x
    return TwoInputs()

def needs_arguments(width):
    return good()

def no_module():
    return 3

constant = 3
"""

#: At a moment of a command, Ctrl-C.
INTERRUPTING = """
import atexit, os, signal, sys

def interrupt(*_):
    os.kill(os.getpid(), signal.SIGINT)

class Finder:
    def find_spec(self, name, path=None, target=None):
        if MOMENT in (f"import {name}", f"from {name}"):
            interrupt()
        if MOMENT == "class" and name == "torch":
            type("Made", (), {"by": Turning()})

class Turning:  # Python makes RuntimeError of what is raised there
    def __set_name__(self, owner, name):
        interrupt()

def watch(frame, event, argument):
    if MOMENT == f"def {frame.f_code.co_name}" and "robust_flatness" in frame.f_code.co_filename:
        interrupt()

sys.meta_path.insert(0, Finder())
if MOMENT.startswith("def"):
    sys.setprofile(watch)
if MOMENT == "at the end":
    atexit.register(interrupt)
"""


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """`run(*arguments)` -> (exit status, standard output, standard error), in `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["robust-flatness", *map(str, arguments)])
        try:
            cli.main()
            status = 0
        except SystemExit as exit_:
            status = exit_.code or 0
        out, err = capsys.readouterr()
        return status, out, err

    yield call
    torch.set_num_threads(threads)


@pytest.fixture
def refused(run):
    """`refused(words, *arguments)`: exit status 1 and one message with all the words."""

    def check(words, *arguments):
        status, out, err = run(*arguments)
        assert status == 1
        assert err.startswith("error: ")
        assert "Traceback" not in err + out
        missing = [word for word in words if word not in err]
        assert not missing, err
        return err

    return check


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "seed-0.safetensors"
    save_dataset(path, make_splits(DataSpec(name="digits", train=30, early_stopping=20, test=25), 0))
    return path


@pytest.fixture(scope="module")
def checkpoint(prepared, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoints") / "last.safetensors"
    dataset, spec = load_dataset(prepared), ModelSpec(name="small-resnet", width=2)
    model = build_model(spec, 10, dataset.mean, dataset.std, generator(0, "test"))
    described = Metadata(spec.model_dump(), 10, dataset.mean, dataset.std, "at", 0, 4)
    save_checkpoint(path, model, described)
    return path


@pytest.fixture
def own(tmp_path):
    """A module of networks and data of one's own, in the working directory of `run`."""
    (tmp_path / "my_nets.py").write_text(NETS)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (12, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "my.npz", x_train=x, y_train=np.arange(12) % 3, x_test=x, y_test=np.arange(12) % 3)
    yield tmp_path
    sys.modules.pop("my_nets", None)


@pytest.fixture
def measured(run, own):
    """`measured(...)`: what a call of `measure` writes as JSON."""

    def call(*arguments, **options):
        status, _, err = run(*measure(*arguments, output="mine.json", **options))
        assert status == 0, err
        return json.loads((own / "mine.json").read_text())

    return call


def measure(model="my_nets:good", **options):
    options = {
        "data": "my.npz",
        "epsilon": "8/255",
        "examples": 6,
        "steps": 2,
        "restarts": 1,
        "samples": 1,
    } | options
    return [
        "measure",
        "--model",
        model,
        *(w for k, v in options.items() for w in (f"--{k.replace('_', '-')}", v)),
    ]


# Help.


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command):
    result = CliRunner().invoke(cli.app, [command, "--help"])
    assert result.exit_code == 0
    assert len(result.output.split("Usage:")[1].strip().splitlines()) > 3


@pytest.mark.parametrize("width", [60, 80, 200])
def test_help_cuts_nothing_at_the_width_of_the_terminal(width):
    commands = get_command(cli.app).commands
    shown = CliRunner(env={"COLUMNS": str(width)}).invoke(cli.app, ["--help"]).output
    for name, command in commands.items():
        assert name in shown.split()
        assert " ".join(command.help.partition("\n\n")[0].split()) in " ".join(shown.split())
    shown = CliRunner(env={"COLUMNS": str(width)}).invoke(cli.app, ["measure", "--help"]).output
    for option in commands["measure"].params:
        assert option.opts[0] in shown.split()


def test_every_rule_calls_a_command_that_exists():
    import re

    text = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    called = set(re.findall(r"robust-flatness (?:--timings \S+ )?([a-z][a-z0-9-]*)", text))
    assert called
    assert called <= set(COMMANDS)


def test_help_imports_no_torch():
    code = "import sys; from robust_flatness import cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# Specs.


def test_help_on_a_terminal_without_unicode():
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C", "COLUMNS": "80"}
    command = [sys.executable, "-m", "robust_flatness", "measure", "--help"]
    done = subprocess.run(command, capture_output=True, env=environment, check=True)
    assert b"--epsilon" in done.stdout


def test_printed_specs_are_read_back(run, monkeypatch):
    for step in ("data", "baseline", "robustness", "flatness", "hessian", "landscape", "series"):
        status, out, err = run("spec", step, "--config", ROOT / "config/smoke.yaml")
        assert status == 0, err
        assert json.loads(out)
    status, out, _ = run("spec", "train", "--config", ROOT / "config/smoke.yaml", "--variant", "trades-6")
    experiment = load_experiment(load_yaml(ROOT / "config/smoke.yaml"), ROOT / "config/variants.yaml")
    assert out.strip() == experiment.train_job("trades-6", 0).json_text()


def test_unknown_steps_and_variants_are_named(refused):
    config = ["--config", ROOT / "config/smoke.yaml"]
    refused(["'x'", "robustness", "train"], "spec", "x", *config)
    refused(["variant: 'nope'", "smoke"], "spec", "train", "--variant", "nope", *config)
    refused(["variant: unknown variant 'nope'"], "spec", "flatness", "--variant", "nope", *config)
    refused(["missing.yaml", "cannot be read"], "spec", "train", "--config", "missing.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ["--spec", "not valid JSON"]),
        ("nothing.json", ["--spec", "nothing.json", "neither JSON nor a file"]),
        ("x" * 5000, ["--spec", "neither JSON nor a file"]),
        ("{}", ["--spec.name", "required"]),
        (
            '{"name": "digits", "train": 0, "early_stopping": 1, "test": 1}',
            ["--spec.train", "equal to 1", "0"],
        ),
        (
            '{"name": "digits", "train": NaN, "early_stopping": 1, "test": 1}',
            ["--spec.train", "finite", "nan"],
        ),
        (
            '{"name": "digits", "train": 1, "early_stopping": 1, "test": 1, "x": 1}',
            ["--spec.x", "unknown field"],
        ),
        (
            '{"name": "cifar", "train": 1, "early_stopping": 1, "test": 1}',
            ["--spec.name", "'cifar'", "'npz'"],
        ),
    ],
)
def test_bad_specs_are_named(refused, tmp_path, text, words):
    refused(words, "prepare", "--spec", text, "--output", "out.npz")
    assert not (tmp_path / "out.npz").exists()


def test_specs_come_from_files_too(run, refused, tmp_path):
    path = tmp_path / "data.json"
    path.write_text('{"name": "digits", "train": 30, "early_stopping": 20, "test": 25}')
    assert run("prepare", "--spec", path, "--output", "out.npz")[0] == 0
    assert load_dataset(tmp_path / "out.npz").size("test") == 25
    path.write_bytes(b"\xff{")
    refused(["--spec", "not valid JSON"], "prepare", "--spec", path, "--output", "other.npz")


def test_sizes_beyond_the_data_are_named(refused, own):
    spec = {"name": "npz", "path": "my.npz", "train": 13, "early_stopping": 5, "test": 5}
    refused(
        ["data.train", "13", "my.npz", "12"], "prepare", "--spec", json.dumps(spec), "--output", "out.npz"
    )
    spec |= {"train": 6, "test": 8}
    refused(["data.test", "8", "my.npz", "12"], "prepare", "--spec", json.dumps(spec), "--output", "out.npz")
    spec |= {"path": "missing.npz"}
    refused(["data.path", "missing.npz"], "prepare", "--spec", json.dumps(spec), "--output", "out.npz")


# Jobs.


def smoke(step):
    experiment = load_experiment(load_yaml(ROOT / "config/smoke.yaml"), ROOT / "config/variants.yaml")
    if step == "train":
        return experiment.train_job("at", 0).json_text()
    return experiment.measures[step].json_text()


@pytest.mark.parametrize("step", ["robustness", "flatness", "hessian", "landscape"])
def test_measures_refuse_damaged_files_and_bad_devices(refused, prepared, checkpoint, tmp_path, step):
    common = ["--spec", smoke(step), "--output", "run"]
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(checkpoint.read_bytes()[:-100])
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(prepared.read_bytes()[:-100])
    command = ["measure-checkpoints", step]
    refused([str(cut), "truncated or damaged"], *command, cut, *common, "--data", prepared)
    refused(["missing.safetensors"], *command, "missing.safetensors", *common, "--data", prepared)
    refused([str(damaged), "damaged"], *command, checkpoint, *common, "--data", damaged)
    refused(["missing.npz", "no such file"], *command, checkpoint, *common, "--data", "missing.npz")
    arguments = [*command, checkpoint, *common, "--data", prepared, "--device"]
    refused(["--device", "'tpu'", "cuda:N and mps"], *arguments, "tpu")
    if not torch.cuda.is_available():
        refused(["--device", "no such device"], *arguments, "cuda")
    assert not (tmp_path / "run").exists()


def test_more_examples_than_the_data_has_are_named(refused, prepared, checkpoint):
    spec = json.loads(smoke("robustness")) | {"test_examples": 26}
    arguments = [checkpoint, "--spec", json.dumps(spec), "--data", prepared, "--output", "run"]
    refused(["26 examples", "25"], "measure-checkpoints", "robustness", *arguments)


def test_an_unknown_measure_is_named(refused, prepared, checkpoint):
    arguments = [checkpoint, "--spec", "{}", "--data", prepared, "--output", "run"]
    words = ["'flatnes'", "did you mean 'flatness'?", "robustness, flatness"]
    refused(words, "measure-checkpoints", "flatnes", *arguments)


def test_series_needs_snapshots(refused, prepared, tmp_path):
    arguments = ["--spec", smoke("series"), "--data", prepared, "--output", "run"]
    words = [str(tmp_path), "no snapshots"]
    refused(words, "measure-checkpoints", "series", tmp_path / "last.safetensors", *arguments)


@pytest.mark.parametrize("factor", ["0", "-1", "nan", "inf"])
def test_scaling_needs_a_positive_factor(refused, checkpoint, factor):
    arguments = ["scale", checkpoint, f"--factor={factor}", "--variant", "x", "--directory", "scaled"]
    refused(["--factor", factor], *arguments)


def test_training_refuses_a_damaged_dataset(refused, tmp_path):
    (tmp_path / "data.npz").write_bytes(b"PK")
    refused(
        ["data.npz", "damaged"],
        "train", "--spec", smoke("train"), "--data", "data.npz", "--directory", "run",
    )  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_unknown_options_and_negative_seeds_are_refused(run, prepared):
    for arguments in (["--seed", "-1"], ["--sed", "1"], ["--threads", "0"]):
        command = ["train", "--spec", "{}", "--data", prepared, "--directory", "run", *arguments]
        status, _, err = run(*command)
        assert status == 2
        assert arguments[0] in err
        assert "Traceback" not in err


def test_a_full_disk_is_reported_without_a_traceback(refused, monkeypatch):
    def no_space(*_):
        raise OSError(28, "No space left on device", "out.npz")

    monkeypatch.setattr("os.fsync", no_space)
    spec = '{"name": "digits", "train": 30, "early_stopping": 20, "test": 25}'
    refused(["out.npz", "No space left"], "prepare", "--spec", spec, "--output", "out.npz")


@pytest.fixture
def full_disk():
    """`full_disk(size)`: files end at `size` bytes, as on a full disk: the system's error names no file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("path", ["made/a.json", "out.npz", "made/models", "mine.png"])
def test_a_full_disk_is_reported_with_the_file_that_was_written(run, own, checkpoint, full_disk, path):
    spec = '{"name": "digits", "train": 30, "early_stopping": 20, "test": 25}'
    full_disk(20_000 if path == "mine.png" else 500)
    command = {
        "made/a.json": measure(output=path),
        "out.npz": ["prepare", "--spec", spec, "--output", path],
        "made/models": ["export", checkpoint, "--directory", "made"],
        "mine.png": measure(picture=path),
    }[path]
    status, _, err = run(*command)
    assert status == 1
    assert re.search(
        rf"^error: .*File too large: '.*{path.removesuffix('a.json')}.*'\Z", err.strip(), re.MULTILINE
    )
    assert ".tmp" not in err


def test_collect_refuses_missing_and_damaged_measures(refused, tmp_path):
    spec = {
        "variants": {"at": {"label": "AT", "family": "at", "epochs": 3, "measures": ["flatness"]}},
        "seeds": [0],
    }
    path = tmp_path / "results/at/seed-0/measures/last/flatness.json"
    arguments = ["collect", "--spec", json.dumps(spec), "--directory", "results"]
    refused(["flatness.json", "no such measure"], *arguments)
    path.parent.mkdir(parents=True)
    for content in ("", "{", "[]", "null", '{"values": {}}', '{"values": 1, "details": 1, "checkpoint": 1}'):
        path.write_text(content)
        refused(["flatness.json", "damaged"], *arguments)
    assert not (tmp_path / "results/models.csv").exists()


# A network of one's own.


def test_own_network_is_measured(measured):
    values = measured()["values"]
    assert values["test_rloss_pgd"] >= values["test_ce"]


def test_an_own_result_says_what_it_is_of(measured, own):
    first = measured()
    assert first["measures"]["robustness"]["spec"]["test_examples"] == 6
    assert first["measures"]["robustness"]["spec"]["train_examples"] == 0
    assert not [column for column in first["values"] if "train" in column]
    save_file({"1.weight": torch.zeros(3, 64), "1.bias": torch.zeros(3)}, own / "zero.safetensors")
    other = measured(weights="zero.safetensors")
    assert other["data_sha256"] == first["data_sha256"]
    assert other["weights_sha256"] != first["weights_sha256"]
    assert len(first["weights_sha256"]) == 64


def test_other_measures_of_an_own_network(measured, refused, own):
    """The Hessian is of the images that are left, and of none if none are."""
    values = measured(measures="hessian,flatness", train_examples=4)["values"]
    assert values["hessian_examples"] == 6
    assert values["flatness_train_examples"] == 4
    assert "train_avg_flatness_rloss" in values
    for late in ("hessian", "landscape"):  # on held-out images: said before anything is measured
        words = [f"{late}: ", "fewer --examples"]
        refused(words, *measure(measures=f"robustness,{late}", examples=12, output="late.json"))
        assert not list(own.glob(".resume/late/robustness/*/*.json"))
    refused(["--measures", "'series'", "robustness"], *measure(measures="series"))
    refused(["13 examples", "x_train has 12"], *measure(train_examples=13))


def test_sharpness_of_an_own_network_by_name_and_by_function(run, own, measured, refused):
    """Those asked for and no others; one's own is printed by its name."""
    with (own / "my_nets.py").open("a") as file:
        file.write(
            "\ndef spread(model, x, y, *, loss='ce', batch_size=128, seed=0):\n"
            "    from robust_flatness.sharpness import SharpnessResult\n"
            "    return SharpnessResult(0.125)\n"
        )
    chosen = {"measures": "robustness", "sharpness": "fisher_trace,my_nets:spread", "train_examples": 4}
    values = measured(**chosen)["values"]
    assert values["spread_ce"] == values["spread_rloss"] == 0.125
    assert "fisher_trace_rloss" in values
    assert "weight_norm" not in values
    _, out, _ = run(*measure(**chosen))
    assert re.search(r"^spread_ce +0\.125", out, re.M)
    refused(["'fisher'", "did you mean 'fisher_"], *measure(sharpness="fisher", train_examples=4))
    refused(["--train-examples"], *measure(sharpness="all"))


def test_an_own_network_is_measured_as_a_checkpoint_is(run, own, measured):
    """The same weights and images, as a checkpoint of the kit and as anyone's function, give equal values."""
    (own / "kit.py").write_text(
        "from robust_flatness.config import ModelSpec\n"
        "from robust_flatness.models import build_model\n"
        "def net():\n"
        "    return build_model(ModelSpec(name='small-resnet', width=2), 3, [0.5], [0.2])\n"
    )
    spec = {"name": "npz", "path": "my.npz", "train": 9, "early_stopping": 3, "test": 9}
    run("prepare", "--spec", json.dumps(spec), "--output", "prepared.npz")
    dataset = load_dataset(own / "prepared.npz")
    np.savez(
        own / "same.npz",
        **{
            f"{kind}_{split}": dataset.arrays[f"{kind}_{split}"].squeeze()
            for kind in "xy"
            for split in ("train", "test")
        },
    )
    sys.path.insert(0, str(own))
    try:
        from kit import net

        model = net()
    finally:
        sys.path.pop(0)
        sys.modules.pop("kit", None)
    save_file(model.state_dict(), own / "kit.safetensors")
    described = Metadata({"name": "small-resnet", "width": 2}, 3, (0.5,), (0.2,), "at", 0, 4)
    save_checkpoint(own / "last.safetensors", model, described)
    mine = measured("kit:net", weights="kit.safetensors", data="same.npz", examples=9)
    for name, part in mine["measures"].items():
        arguments = ["--spec", json.dumps(part["spec"]), "--data", "prepared.npz", "--output", "run"]
        status, _, err = run("measure-checkpoints", name, "last.safetensors", *arguments)
        assert status == 0, err
        ours = json.loads((own / f"run/measures/last/{name}.json").read_text())["values"]
        assert ours == {column: mine["values"][column] for column in ours}


def test_all_own_test_examples_are_taken_where_there_are_fewer_than_the_default(run, own, measured):
    default = measure(output="all.json")
    at = default.index("--examples")
    status, _, err = run(*default[:at], *default[at + 2 :])
    assert status == 0, err
    assert json.loads((own / "all.json").read_text())["values"] == measured(examples=12)["values"]


def test_own_weights_are_loaded(measured, own):
    save_file({"1.weight": torch.zeros(3, 64), "1.bias": torch.zeros(3)}, own / "zero.safetensors")
    assert measured(weights="zero.safetensors")["values"]["test_ce"] == pytest.approx(np.log(3), rel=1e-6)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("my_nets", ["model", "'my_nets'", "package.module:function"]),
        ("nothing:good", ["model", "'nothing:good'", "cannot be imported"]),
        (".my_nets:good", ["model", "'.my_nets:good'", "cannot be imported"]),
        ("my_nets:nothing", ["model", "'my_nets:nothing'", "cannot be imported"]),
        ("my_nets:constant", ["model", "constant"]),
        ("my_nets:needs_arguments", ["model", "needs_arguments", "without arguments"]),
        ("my_nets:no_module", ["model", "int", "nn.Module"]),
        ("my_nets:few", ["y: label 2", "2 classes"]),
        ("my_nets:flat", ["model", "[n, K]"]),
        ("my_nets:images", ["model", "(2, 1, 8, 8)", "[n, K]"]),
        ("my_nets:pair", ["model", "tuple", "[n, K]"]),
        ("my_nets:other_size", ["model", "fails on float32 inputs of shape (2, 1, 8, 8)"]),
        ("my_nets:two_inputs", ["model", "fails on float32 inputs of shape (2, 1, 8, 8)"]),
        ("my_nets:not_a_number", ["model", "NaN"]),
    ],
)
def test_networks_that_cannot_be_measured_are_named(refused, own, model, words):
    refused(words, *measure(model))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"epsilon": "0"}, ["--epsilon", "'0'", "greater than 0"]),
        ({"epsilon": "-1"}, ["--epsilon", "'-1'", "greater than 0"]),
        ({"epsilon": "8/0"}, ["--epsilon", "'8/0'"]),
        ({"epsilon": "nan"}, ["--epsilon", "'nan'"]),
        ({"epsilon": "8"}, ["epsilon", "8", "less than or equal to 1"]),
        ({"step_size": "0"}, ["--step-size", "'0'"]),
        ({"average_xi": "0"}, ["--average-xi", "'0'"]),
        ({"worst_xi": "x"}, ["--worst-xi", "'x'"]),
        ({"examples": 13}, ["--examples", "13", "12"]),
        ({"data": "missing.npz"}, ["missing.npz", "no such file"]),
        ({"data": "my_nets.py"}, ["my_nets.py", "npz"]),
        ({"weights": "missing.safetensors"}, ["weights", "missing.safetensors"]),
        ({"weights": "my_nets.py"}, ["weights", "my_nets.py", ".safetensors"]),
    ],
)
def test_own_settings_are_checked(refused, own, options, words):
    refused(words, *measure(**options))


@pytest.mark.parametrize("option", ["steps", "restarts", "samples", "examples", "batch_size"])
def test_counts_below_one_are_refused(run, own, option):
    status, _, err = run(*measure(**{option: 0}))
    assert status == 2
    assert option.replace("_", "-") in err


def test_what_autoattack_advises_for_few_classes_is_an_option(run, own, measured):
    status, _, err = run(*measure(), "--autoattack")
    assert status == 1
    attacks = re.search(r"apgd-t needs at least 4 classes.* --attacks (\S+),", err)[1]
    assert "reduced: apgd-ce+fab-t" in measured(attacks=attacks)["values"]["autoattack"]


def test_a_table_of_values_is_printed(run, own):
    """Without options: every measure in words with its standard error, no JSON."""
    status, out, _ = run(*measure(samples=2))
    assert status == 0
    assert "RLoss, test" in out
    assert "average-case flatness in RLoss" in out
    assert "+-" in out.splitlines()[0]
    assert "{" not in out
    assert not (own / ".resume").exists()


def test_values_of_each_example_average_to_the_result(measured, own):
    result = measured(per_example="each.csv", attacks="apgd-ce,fab-t", train_examples=4)
    rows = read_rows(own / "each.csv").rows
    assert [row["split"] for row in rows] == ["test"] * 6 + ["train"] * 4
    for split in ("test", "train"):
        own_rows = [row for row in rows if row["split"] == split]
        assert [int(row["example"]) for row in own_rows] == list(range(len(own_rows)))
        columns = {"ce": "ce", "rloss": "rloss_pgd", "rloss_aa": "rloss_aa"}
        columns |= {name: name for name in ("err", "rerr_pgd", "rerr_aa")}
        for column, name in columns.items():
            mean = np.mean([float(row[column]) for row in own_rows]) * (100 if "err" in column else 1)
            assert mean == pytest.approx(result["values"][f"{split}_{name}"], rel=1e-5)
        for row in own_rows:
            assert (row["label"] != row["prediction"]) == (row["err"] == "1")
            assert float(row["rloss"]) >= float(row["ce"])


def test_layers_are_measured_and_shown(run, own):
    status, out, _ = run(*measure("my_nets:good", output="mine.json", samples=2), "--per-layer-worst")
    assert status == 0
    details = json.loads((own / "mine.json").read_text())["measures"]["layers"]["details"]
    assert [(row["layer"], row["numbers"]) for row in details["layers"]] == [("1.weight", 192), ("1.bias", 3)]
    assert all({"avg_flatness_rloss", "avg_flatness_rloss_se", "worst_flatness_rloss"} <= row.keys()
               for row in details["layers"])  # fmt: skip
    assert "1.weight" in out


@pytest.mark.parametrize(
    ("options", "allowed"),
    [
        ({"scope": "set"}, "dataset"),
        ({"precision": "half"}, "bfloat16"),
        ({"worst_restarts": 0}, "worst-restarts"),
    ],
)
def test_choices_that_there_are_not_are_refused(run, own, options, allowed):
    status, _, err = run(*measure("my_nets:nothing", **options))
    assert status == 2
    assert allowed in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "gpu"}, ["--device", "'gpu'", "cuda:N"]),
        ({"picture": "mine.gif"}, ["--picture", "mine.gif", ".png"]),
        ({"picture": "mine.png", "measures": "robustness"}, ["--picture", "flatness"]),
        ({"against": "missing.csv"}, ["missing.csv"]),
        ({"measures": ","}, ["--measures", "robustness"]),
    ],
)
def test_what_cannot_be_done_is_said_before_the_network_is_made(refused, own, options, words):
    refused(words, *measure("my_nets:nothing", **options))


def test_scope_precision_and_restarts_reach_the_measures(measured):
    result = measured(scope="batch", precision="auto", worst_restarts=3, batch_size=2, measures="flatness")
    spec = result["measures"]["flatness"]["spec"]
    assert spec["average"]["scope"] == spec["worst"]["scope"] == "batch"
    assert spec["average"]["batch_size"] == 2
    assert spec["worst"]["restarts"] == 3
    assert spec["precision"] in ("float32", "bfloat16")


def test_what_misleads_is_warned_of(run, own):
    (own / "my_nets.py").write_text(NETS + "def soft():\n    return nn.Sequential(good(), nn.Softmax(1))\n")
    status, _, err = run(*measure("my_nets:soft", output="mine.json"))
    assert status == 0
    warned = json.loads((own / "mine.json").read_text())["warnings"]
    assert any("probabilities" in warning for warning in warned)
    assert any("most frequent class" in warning for warning in warned)
    assert all(f"warning: {warning}" in err for warning in warned)


@pytest.mark.parametrize(("kind", "close"), [("double", 1e-5), ("half", 1e-2), ("bfloat16", 5e-2)])
def test_a_network_of_another_type_is_measured_in_it(measured, own, kind, close):
    """Images are brought to its type; losses are those in float32 but for rounding."""
    (own / "my_nets.py").write_text(NETS + f"def other():\n    return good().{kind}()\n")
    same, other = measured()["values"], measured("my_nets:other")["values"]
    for name in ("test_ce", "test_rloss_pgd"):
        assert other[name] == pytest.approx(same[name], abs=close)
    assert abs(other["avg_flatness_rloss"]) < 1  # along other directions
    shifted = [
        measured(name, mean=0.5, std=0.25)["values"]["test_ce"] for name in ("my_nets:good", "my_nets:other")
    ]
    assert shifted[1] == pytest.approx(shifted[0], abs=close)


def test_an_interrupted_run_goes_on(run, own, monkeypatch):
    """What was finished is not measured again, and the result is that of a run without interruption."""
    from dataclasses import replace

    from robust_flatness.flatness import worst
    from robust_flatness.measuring import own_model

    def fails(*_, **__):
        raise KeyboardInterrupt

    assert run(*measure(output="whole.json"))[0] == 0
    with monkeypatch.context() as patched:
        patched.setattr(worst.JointSearch, "run", fails)
        assert run(*measure(output="mine.json"))[0] != 0
    assert not (own / "mine.json").exists()
    entry = own_model.MEASURES["robustness"]
    monkeypatch.setitem(own_model.MEASURES, "robustness", replace(entry, function=fails))
    monkeypatch.setattr("robust_flatness.flatness.average_flatness", fails)
    status, _, err = run(*measure(output="mine.json"))
    assert status == 0, err
    assert "robustness: taken from an earlier run" in err
    assert (own / "mine.json").read_bytes() == (own / "whole.json").read_bytes()


@pytest.mark.parametrize(
    "moment", ["import torch", "from robust_flatness.cli", "class", "def measure", "at the end"]
)
def test_ctrl_c_ends_with_one_line_at_any_moment(own, moment):
    """The process interrupts itself: when it imports the command line or torch, measures, or has ended."""
    (own / "sitecustomize.py").write_text(f"MOMENT = {moment!r}\n" + INTERRUPTING)
    command = [sys.executable, "-m", "robust_flatness", *map(str, measure())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(own), os.environ.get("PYTHONPATH", "")])}
    default = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
    done = subprocess.run(
        command, cwd=own, env=environment, preexec_fn=default, capture_output=True, text=True, check=False
    )
    if moment == "at the end":
        assert done.returncode == 0
        assert "Error" not in done.stderr
        return
    assert done.returncode in (130, -signal.SIGINT)  # a shell says 130 of both
    assert done.stderr.splitlines() == ["interrupted"]


def test_another_function_of_equal_weights_is_measured_anew(measured, own):
    first = measured()["values"]
    (own / "my_nets.py").write_text(
        NETS.replace(
            "nn.Flatten(), nn.Linear(64, 3)", "nn.Flatten(), nn.ReLU6(), nn.Linear(64, 3), nn.Tanh()"
        )
    )
    sys.modules.pop("my_nets")
    assert measured()["values"]["test_rloss_pgd"] != first["test_rloss_pgd"]


def test_a_network_is_ranked_among_others(run, own):
    table = own / "models.csv"
    rows = "".join(f"v{i},last,{loss}\n" for i, loss in enumerate((0.01, 99, 98, 97)))
    table.write_text("variant,checkpoint,test_rloss_pgd\n" + rows)
    status, out, _ = run(*measure(output="mine.json", against="models.csv"))
    assert status == 0
    assert "test RLoss: " in out
    assert "Among models.csv:" in out
    assert "rank 2 of 5 (the others 0.01 to 99; 25 % lie below)" in out
    assert "of 75 (" in out.partition("Among models.csv")[0]
    assert json.loads((own / "mine.json").read_text())["values"]["test_rloss_pgd"] > 0.01


def test_own_weights_that_do_not_fit_are_named(refused, own):
    save_file({"1.weight": torch.zeros(3, 63), "1.bias": torch.zeros(3)}, own / "other.safetensors")
    refused(
        ["other.safetensors", "another architecture", "'1.weight'"], *measure(weights="other.safetensors")
    )
    whole = (own / "other.safetensors").read_bytes()
    (own / "cut.safetensors").write_bytes(whole[:-10])
    refused(["cut.safetensors", "truncated or damaged"], *measure(weights="cut.safetensors"))


def test_pickled_weights_are_refused_and_not_run(refused, own):
    class Bomb:
        def __reduce__(self):
            return (open, (str(own / "exploded"), "w"))

    torch.save({"x": Bomb()}, own / "bomb.safetensors")
    refused(["bomb.safetensors"], *measure(weights="bomb.safetensors"))
    assert not (own / "exploded").exists()


def test_the_kept_schema_is_that_of_the_config(run):
    status, out, _ = run("schema")
    assert status == 0
    assert json.loads(out) == json.loads((ROOT / "config/schema.json").read_text())
    assert {"epsilon", "data", "measures", "baseline_seeds"} <= json.loads(out)["properties"].keys()


@pytest.mark.parametrize("name", ["fashion", "digits", "smoke", "cifar10-mini", "cifar10", "published"])
def test_shipped_experiments_are_valid_by_the_schema(name):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((ROOT / "config/schema.json").read_text())
    jsonschema.validate(load_yaml(ROOT / f"config/{name}.yaml"), schema)
    with pytest.raises(jsonschema.ValidationError, match="epsilonn"):
        jsonschema.validate({"experiment": "x", "epsilonn": 1}, schema)


@pytest.mark.parametrize("shape", ["3", "3,8,8", "a,b", ""])
def test_a_shape_is_two_whole_numbers(refused, own, shape):
    spec = '{"model": "my_nets:good"}'
    refused(
        ["--shape", "3,32"], "check-network", "--spec", spec, "--name", "a", "--shape", shape, "--classes", 3
    )
