"""The command line: bad input ends with one message and exit status 1, before any long work."""

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.main import get_command
from typer.testing import CliRunner

from robust_flatness import cli
from robust_flatness.config import load_yaml
from robust_flatness.data import load_dataset
from robust_flatness.experiment import load_experiment
from untrained import MEASURES, SERIES, write_checkpoint, write_data, write_network

ROOT = Path(__file__).parents[1]
SMOKE = ROOT / "config/smoke.yaml"
COMMANDS = get_command(cli.app).commands
DIGITS = {"name": "digits", "train": 30, "early_stopping": 20, "test": 25}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def network(prepared, tmp_path) -> Path:
    return write_network(tmp_path, prepared, snapshots=1)


# Help.


@pytest.mark.parametrize("width", [80, 200])
def test_every_command_and_option_is_in_the_help_at_any_width(width):
    runner = CliRunner(env={"COLUMNS": str(width)})
    overview = runner.invoke(cli.app, ["--help"]).output
    for name, command in COMMANDS.items():
        assert name in overview.split()
        shown = runner.invoke(cli.app, [name, "--help"]).output.split()
        options = [word for parameter in command.params for word in parameter.opts if word.startswith("--")]
        assert not [option for option in options if option not in shown], name


def test_every_rule_calls_a_command_that_exists():
    text = "".join(path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk"))
    called = set(re.findall(r"robust-flatness (?:--timings \S+ )?([a-z][a-z0-9-]*)", text))
    assert {"train", "measure-network", "collect"} <= called
    assert called <= {*COMMANDS}


def test_the_command_line_starts_without_torch():
    code = "import sys; from robust_flatness import cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# Settings.


def test_printed_settings_are_those_of_the_jobs(run):
    experiment = load_experiment(load_yaml(SMOKE), ROOT / "config/variants.yaml")
    for step in ("data", "baseline", *experiment.measures):
        status, out, err = run("spec", step, "--config", SMOKE)
        assert status == 0, err
        assert out.strip() == experiment.settings_of(step, "at", 0).json_text()
    out = run("spec", "train", "--config", SMOKE, "--variant", "trades-6")[1]
    assert out.strip() == experiment.train_job("trades-6", 0).json_text()
    job = json.loads(run("spec", "measure", "--config", SMOKE, "--variant", "trades-6")[1])
    assert {*job["measures"]} == {*experiment.measures_of("trades-6")}


def test_unknown_steps_variants_and_configs_are_named(refused):
    refused(["'x'", "robustness", "train"], "spec", "x", "--config", SMOKE)
    refused(["variant: 'nope'", "smoke"], "spec", "train", "--variant", "nope", "--config", SMOKE)
    refused(["variant 'nope'"], "spec", "flatness", "--variant", "nope", "--config", SMOKE)
    refused(["variant 'nope'"], "spec", "measure", "--variant", "nope", "--config", SMOKE)
    refused(["missing.yaml"], "spec", "train", "--config", "missing.yaml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ["--spec", "not valid JSON"]),
        ("nothing.json", ["--spec", "nothing.json", "neither JSON nor a file"]),
        ("{}", ["--spec.name", "required"]),
        (json.dumps(DIGITS | {"train": 0}), ["--spec.train", "equal to 1", "0"]),
        (json.dumps(DIGITS | {"train": np.nan}), ["--spec.train", "finite", "nan"]),
        (json.dumps(DIGITS | {"x": 1}), ["--spec.x", "unknown field"]),
        (json.dumps(DIGITS | {"name": "cifar"}), ["--spec.name", "'cifar'", "'npz'"]),
    ],
)
def test_bad_settings_are_named_with_their_field(refused, tmp_path, text, words):
    refused(words, "prepare", "--spec", text, "--output", "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()


def test_settings_are_read_from_files_too(run, refused, tmp_path):
    path = tmp_path / "data.json"
    path.write_text(json.dumps(DIGITS))
    assert run("prepare", "--spec", path, "--output", "out.safetensors")[0] == 0
    assert load_dataset(tmp_path / "out.safetensors").size("test") == 25
    path.write_bytes(b"\xff{")
    refused(["--spec", "not valid JSON"], "prepare", "--spec", path, "--output", "other.safetensors")


def test_sizes_beyond_the_data_are_named(refused, tmp_path):
    x, y = np.zeros((12, 8, 8), np.uint8), np.arange(12) % 3
    np.savez(tmp_path / "my.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    sizes = {"name": "npz", "path": "my.npz", "train": 6, "early_stopping": 5, "test": 5}
    for changed, words in (
        ({"train": 13}, ["data.train", "13", "my.npz", "12"]),
        ({"test": 8}, ["data.test", "8", "my.npz", "12"]),
        ({"path": "missing.npz"}, ["data.path", "missing.npz"]),
    ):
        refused(words, "prepare", "--spec", json.dumps(sizes | changed), "--output", "out.safetensors")


def test_unknown_options_and_values_out_of_range_are_refused(run, prepared):
    for arguments in (["--seed", "-1"], ["--sed", "1"], ["--threads", "0"]):
        command = ["train", "--spec", "{}", "--data", prepared, "--directory", "run", *arguments]
        status, _, err = run(*command)
        assert status == 2
        assert arguments[0] in err
        assert "Traceback" not in err


# Jobs.


def measuring(folder, data, measures=MEASURES, **job) -> list:
    spec = json.dumps({"variant": "at", "measures": measures} | job)
    return ["measure-network", "--spec", spec, "--data", data, "--directory", folder]


def test_a_network_is_measured_by_its_printed_settings(run, network, prepared):
    status, _, err = run(*measuring(network, prepared))
    assert status == 0, err
    assert (network / "records.csv").exists()
    assert run("export", network / "checkpoints/best.safetensors", "--directory", "made")[0] == 0
    (entry,) = Path("made").glob("model_info/cifar10/Linf/*.json")
    entry = json.loads(entry.read_text())
    assert entry["eps"] == MEASURES["robustness"]["attack"]["epsilon"]
    assert 0 <= float(entry["clean_acc"]) <= 100
    assert entry["autoattack_acc"] is None


def test_measuring_refuses_damaged_files_and_unknown_measures_settings_and_devices(
    refused, network, prepared, tmp_path
):
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(prepared.read_bytes()[:-100])
    refused([str(damaged), "damaged"], *measuring(network, damaged))
    refused(["missing.safetensors", "no such file"], *measuring(network, "missing.safetensors"))
    refused(["'tpu'", "mps"], *measuring(network, prepared), "--device", "tpu")
    if not torch.cuda.is_available():
        refused(["no such device"], *measuring(network, prepared), "--device", "cuda")
    refused(["'flatnes'", "did you mean 'flatness'"], *measuring(network, prepared, {"flatnes": {}}))
    refused(["flatness.average.xi"], *measuring(network, prepared, {"flatness": {"average": {"xi": [-1]}}}))
    many = MEASURES["robustness"] | {"test_examples": 26}
    refused(["26 examples", "20"], *measuring(network, prepared, {"robustness": many}))
    (network / "checkpoints/epoch-000.safetensors").unlink()
    refused(["snapshots of epochs 0"], *measuring(network, prepared, {"series": SERIES}))
    last = network / "checkpoints/last.safetensors"
    last.write_bytes(last.read_bytes()[:-100])
    refused([str(last), "damaged"], *measuring(network, prepared))
    last.unlink()
    refused([str(last)], *measuring(network, prepared))
    assert not (network / "records.csv").exists()


def test_records_of_another_checkpoint_are_not_exported(run, refused, network, prepared):
    run(*measuring(network, prepared))
    write_checkpoint(network / "checkpoints/best.safetensors", prepared, weights=9)
    arguments = ["export", network / "checkpoints/best.safetensors", "--directory", "made"]
    refused(["records.csv", "another checkpoint"], *arguments)
    run(*measuring(network, prepared, {"hessian": {"eigenvalues": 2}}))
    assert run(*arguments)[0] == 0  # of a network whose robustness is unknown, weights alone


@pytest.mark.parametrize("factor", ["0", "-1", "nan", "inf"])
def test_scaling_needs_a_positive_factor(refused, network, factor):
    checkpoint = network / "checkpoints/last.safetensors"
    refused(
        ["--factor", factor],
        "scale", checkpoint, f"--factor={factor}", "--variant", "x", "--directory", "scaled",
    )  # fmt: skip


def test_training_refuses_damaged_data(refused, tmp_path):
    (tmp_path / "data.safetensors").write_bytes(b"PK")
    job = load_experiment(load_yaml(SMOKE), ROOT / "config/variants.yaml").train_job("at", 0).json_text()
    arguments = ["--spec", job, "--data", "data.safetensors", "--directory", "run"]
    refused(["data.safetensors", "damaged"], "train", *arguments)
    assert not (tmp_path / "run").exists()


def test_collecting_needs_records(refused, tmp_path):
    spec = json.dumps({"variants": {"at": {"label": "AT", "family": "at"}}})
    refused(["results", "no records"], "collect", "--spec", spec, "--directory", "results")
    path = tmp_path / "results/at/seed-0/records.csv"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    refused(["records.csv", "damaged"], "collect", "--spec", spec, "--directory", "results")
    assert not (tmp_path / "results/models.csv").exists()


@pytest.mark.parametrize("shape", ["3", "3,8,8", "a,b", ""])
def test_a_shape_is_two_integers(refused, shape):
    arguments = ["--spec", '{"model": "nets:net"}', "--name", "a", "--shape", shape, "--classes", 3]
    refused(["--shape", "3,32"], "check-network", *arguments)


@pytest.fixture
def full_disk():
    """`full_disk(size)`: files end at `size` bytes, as on a full disk: the system's error names no file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("path", ["out.safetensors", "made/models"])
def test_a_full_disk_is_reported_with_the_file_that_was_written(run, network, full_disk, path):
    full_disk(500)
    commands = {
        "out.safetensors": ["prepare", "--spec", json.dumps(DIGITS), "--output", path],
        "made/models": ["export", network / "checkpoints/last.safetensors", "--directory", "made"],
    }
    status, _, err = run(*commands[path])
    assert status == 1
    assert re.search(rf"^error: .*File too large.*: '.*{path}.*'\Z", err.strip(), re.MULTILINE), err
    assert ".tmp" not in err


# Experiments.


def test_a_plan_is_printed_but_not_of_a_results_table(run, refused):
    status, out, _ = run("plan", "--config", SMOKE, "--workers", 8)
    assert status == 0
    assert re.search(r"^measure +4 ", out, re.MULTILINE)
    assert "on 8 cores" in out
    refused(["results table"], "plan", "--config", ROOT / "config/published.yaml")


def test_the_kept_schema_is_that_of_the_config(run):
    status, out, _ = run("schema")
    assert status == 0
    assert json.loads(out) == json.loads((ROOT / "config/schema.json").read_text())
    assert {"epsilon", "data", "measures", "baseline_seeds"} <= json.loads(out)["properties"].keys()


@pytest.mark.parametrize("name", ["fashion", "digits", "smoke", "cifar10-mini", "cifar10", "published"])
def test_experiments_of_the_repository_are_valid_by_the_schema(name):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((ROOT / "config/schema.json").read_text())
    jsonschema.validate(load_yaml(ROOT / f"config/{name}.yaml"), schema)
    with pytest.raises(jsonschema.ValidationError, match="epsilonn"):
        jsonschema.validate({"experiment": "x", "epsilonn": 1}, schema)
