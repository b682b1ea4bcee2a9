"""The command line: bad input ends with one message and exit status 1, before any long work."""

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from robust_flatness.models import build_model
from robust_flatness.models.checkpoint import Metadata, save_checkpoint
from typer.main import get_command
from typer.testing import CliRunner

from robust_flatness import cli
from robust_flatness.config import DataSpec, ModelSpec, load_yaml
from robust_flatness.data import load_dataset, make_splits, save_dataset
from robust_flatness.experiment import load_experiment
from robust_flatness.seeding import generator

ROOT = Path(__file__).parents[1]
COMMANDS = sorted(
    command.name or command.callback.__name__.replace("_", "-") for command in cli.app.registered_commands
)


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
    """Data of one's own, in the working directory of `run`."""
    x = np.random.default_rng(0).integers(0, 256, (12, 8, 8), dtype=np.uint8)
    y = np.arange(12) % 3
    np.savez(tmp_path / "my.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    return tmp_path


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


@pytest.mark.parametrize("path", ["out.npz", "made/models"])
def test_a_full_disk_is_reported_with_the_file_that_was_written(run, own, checkpoint, full_disk, path):
    spec = '{"name": "digits", "train": 30, "early_stopping": 20, "test": 25}'
    full_disk(500)
    command = {
        "out.npz": ["prepare", "--spec", spec, "--output", path],
        "made/models": ["export", checkpoint, "--directory", "made"],
    }[path]
    status, _, err = run(*command)
    assert status == 1
    assert re.search(rf"^error: .*File too large: '.*{path}.*'\Z", err.strip(), re.MULTILINE)
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
