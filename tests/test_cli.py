"""The command line: bad input ends with one message and exit status 1, before any long work."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from robust_flatness.config import load_yaml
from robust_flatness.experiment import load_experiment
from untrained import MEASURES, write_data, write_network

ROOT = Path(__file__).parents[1]
SMOKE = ROOT / "config/smoke.yaml"
DIGITS = {"name": "digits", "train": 30, "early_stopping": 20, "test": 25}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def network(prepared, tmp_path) -> Path:
    return write_network(tmp_path, prepared, snapshots=1)


def test_the_command_line_starts_without_torch():
    code = "import sys; from robust_flatness import cli; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_printed_settings_are_those_of_the_jobs(run):
    experiment = load_experiment(load_yaml(SMOKE))
    steps = {"data": experiment.spec.data, "baseline": experiment.baseline}
    steps["flatness"] = experiment.measures["flatness"].for_variant("at")
    for step, expected in steps.items():
        status, out, err = run("spec", step, "--config", SMOKE)
        assert status == 0, err
        assert out.strip() == expected.json_text()
    out = run("spec", "train", "--config", SMOKE, "--variant", "trades-6")[1]
    assert out.strip() == experiment.train_job("trades-6", 0).json_text()
    job = json.loads(run("spec", "measure", "--config", SMOKE, "--variant", "trades-6")[1])
    assert {*job["measures"]} == {*experiment.measures_of("trades-6")}


def measuring(folder, data, measures=MEASURES, **job) -> list:
    spec = json.dumps({"variant": "at", "measures": measures} | job)
    return ["measure-network", "--spec", spec, "--data", data, "--directory", folder]


def test_a_network_is_measured_by_its_printed_settings(run, network, prepared):
    status, _, err = run(*measuring(network, prepared))
    assert status == 0, err
    assert (network / "records.csv").exists()
    best = network / "checkpoints/best.safetensors"
    assert run("export", best, "--directory", "made", "--dataset", "digits")[0] == 0


def test_the_kept_schema_is_that_of_the_config(run):
    status, out, _ = run("schema")
    assert status == 0
    assert json.loads(out) == json.loads((ROOT / "config/schema.json").read_text())
    assert {"epsilon", "data", "measures", "baseline_seeds"} <= json.loads(out)["properties"].keys()


@pytest.mark.parametrize("name", ["digits", "cifar10", "published"])
def test_experiments_of_the_repository_are_valid_by_the_schema(name):
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((ROOT / "config/schema.json").read_text())
    jsonschema.validate(load_yaml(ROOT / f"config/{name}.yaml"), schema)
    with pytest.raises(jsonschema.ValidationError, match="epsilonn"):
        jsonschema.validate({"experiment": "x", "epsilonn": 1}, schema)


def prepare(spec) -> list:
    return ["prepare", "--spec", spec, "--output", "out.safetensors"]


MISSING = "missing.safetensors"
BAD = {
    "'x'": ["spec", "x", "--config", SMOKE],
    "unknown variant 'nope'": ["spec", "train", "--variant", "nope", "--config", SMOKE],
    "missing.yaml": ["spec", "train", "--config", "missing.yaml"],
    "Invalid JSON": prepare("{"),
    "--spec.name": prepare("{}"),
    "--spec.train": prepare(json.dumps(DIGITS | {"train": 0})),
    "--spec.x": prepare(json.dumps(DIGITS | {"x": 1})),
    "missing.safetensors": measuring("network", MISSING),
    "'flatnes'": measuring("network", MISSING, {"flatnes": {}}),
    "'tpu'": [*measuring("network", MISSING), "--device", "tpu"],
    "no records": ["collect", "--spec", '{"variants": {"at": {"label": "AT", "family": "at"}}}',
                   "--directory", "results"],
    "models.a": ["check-network", "--name", "a", "--spec", '{"model": "nets:net"}', "--data-spec",
                 json.dumps(DIGITS)],
    "no classifier 'x'": ["check-network", "--name", "a", "--spec", '{"model": "torchvision:x"}',
                          "--data-spec", json.dumps(DIGITS | {"name": "npz", "path": "my.npz"})],
    "results table": ["plan", "--config", ROOT / "config/published.yaml"],
    "missing.safetensors: no": ["export", MISSING, "--directory", "made", "--dataset", "digits"],
    "nothing": ["verify", "nothing"],
}  # fmt: skip


@pytest.mark.parametrize("words", BAD)
def test_bad_input_ends_with_one_message_before_anything_is_written(refused, tmp_path, words):
    refused([words], *BAD[words])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
