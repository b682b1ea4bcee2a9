"""The measuring job of a network: parts, resumption, what makes a part stale."""

import copy
import math
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from robust_flatness.checkpoints import Checkpoint
from robust_flatness.config import MeasureSettings
from robust_flatness.data import load_dataset
from robust_flatness.errors import FileError
from robust_flatness.measures import registry
from robust_flatness.measures.base import Examples, Measure, Metric, Record
from robust_flatness.measures.layers import LayersSettings
from robust_flatness.run import measuring
from robust_flatness.tables.records import read_csv, read_network, read_records
from robust_flatness.tables.schema import EXAMPLES
from untrained import ATTACK, MEASURES, SERIES, measure, write_checkpoint, write_data, write_network


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory) -> Path:
    """A network that has been measured."""
    folder = write_network(tmp_path_factory.mktemp("finished"), data)
    measure(folder, data)
    return folder


@pytest.fixture
def network(finished, tmp_path) -> Path:
    """A copy of the measured network."""
    return Path(shutil.copytree(finished, tmp_path / "at/seed-0"))


@pytest.fixture
def computed(monkeypatch) -> list[tuple[str, str]]:
    """The parts that are computed: (measure, checkpoint)."""
    parts, original = [], measuring.measured

    def noted(entry, checkpoint, *arguments):
        parts.append((entry.name, checkpoint.name))
        return original(entry, checkpoint, *arguments)

    monkeypatch.setattr(measuring, "measured", noted)
    return parts


def outputs(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("records.csv", "examples.csv")}


def test_records_and_examples_are_written_with_what_made_them(finished, data):
    records = read_records(finished / "records.csv")
    assert set(records["checkpoint"]) == {"last", "best"}
    assert set(records["measure"]) == {*MEASURES}
    assert records["value"].notna().all()
    header, _ = read_network(finished / "records.csv")
    assert header["settings"] == MEASURES
    assert header["data_sha256"] == load_dataset(data).checksum
    assert {"torch", "git_commit", "device", "threads", "robust_flatness"} <= header["provenance"].keys()
    assert {checkpoint["epoch"] for checkpoint in header["checkpoints"].values()} == {0}
    rows = read_csv(finished / "examples.csv", need=EXAMPLES).to_dict("records")
    assert len(rows) == 2 * 2 * 10
    for key, group in records[records["metric"] == "rloss_pgd"].groupby(["checkpoint", "split"]):
        losses = [float(row["rloss"]) for row in rows if (row["checkpoint"], row["split"]) == key]
        assert group["value"].item() == pytest.approx(sum(losses) / len(losses), rel=1e-6)


def test_a_changed_setting_computes_its_measure_alone(network, data, computed):
    changed = copy.deepcopy(MEASURES)
    changed["flatness"]["average"]["samples"] = 3
    messages = measure(network, data, changed)
    assert computed == [("flatness", "last"), ("flatness", "best")]
    assert any("computed again, as these have changed" in message for message in messages)
    measure(network, data, {"hessian": MEASURES["hessian"]})
    assert len(computed) == 2
    assert set(read_records(network / "records.csv")["measure"]) == {"hessian"}


def test_new_weights_are_measured_alone(network, data, computed):
    write_checkpoint(network / "checkpoints/best.safetensors", data, weights=9)
    measure(network, data)
    assert computed == [(name, "best") for name in MEASURES if name != "hessian"]


class Normalising(nn.Module):
    """A scale that is known to normalise by its use alone."""

    def __init__(self):
        super().__init__()
        self.scale, self.out = nn.Parameter(torch.ones(64)), nn.Linear(64, 10)

    def forward(self, x):
        return self.out(F.layer_norm(x.flatten(1), (64,), self.scale))


def test_the_first_measure_of_a_network_knows_which_parameters_are_perturbed(data):
    few = {"xi": [0.5], "samples": 1, "clean_samples": 1}
    settings = LayersSettings(attack=ATTACK, average=few, test_examples=10)
    network = Checkpoint(Normalising(), "last")
    part = measuring.measured(registry.MEASURES["layers"], network, Examples(load_dataset(data)), settings)
    assert {Record(*record).coordinate for record in part["records"]} == {"out.weight", "out.bias"}


def test_a_new_version_or_source_of_a_measure_is_measured(network, data, computed, monkeypatch, tmp_path):
    class ToySettings(MeasureSettings):
        own: dict[str, str]

    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "users_module.py"
    module.write_text("def function(): return 1\n")
    entry = Measure("toy", ToySettings, lambda *_: iter([Record("toy", 1.0)]), {"toy": Metric("toy", "toy")})
    monkeypatch.setitem(registry.MEASURES, "toy", entry)
    settings = {"toy": {"own": {"mine": "users_module:function"}}}
    measure(network, data, settings)
    measure(network, data, settings)
    assert len(computed) == 1
    module.write_text("def function(): return 2\n")
    measure(network, data, settings)
    assert len(computed) == 2
    monkeypatch.setitem(registry.MEASURES, "toy", replace(entry, version=2))
    measure(network, data, settings)
    assert len(computed) == 3


def test_equal_checkpoints_are_measured_once(network, data, computed):
    write_checkpoint(network / "checkpoints/best.safetensors", data, weights=0)
    measure(network, data)
    assert not computed  # `last` has been measured with these weights
    records = read_records(network / "records.csv").set_index(["measure", "metric", "loss", "split", "xi"])
    both = [records[records["checkpoint"] == name]["value"] for name in ("last", "best")]
    assert both[0].loc[both[1].index].tolist() == both[1].tolist()
    assert len(both[1]) > 20


@pytest.mark.parametrize("after", [0, 1, 4])
def test_a_job_killed_after_any_part_resumes_to_the_same_bytes(finished, data, tmp_path, computed, after):
    network = write_network(tmp_path, data)
    process = os.fork()
    if not process:
        original = measuring.measured

        def killed(*arguments):
            if len(computed) == after:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments)

        measuring.measured = killed
        measure(network, data)
        os._exit(0)
    assert os.waitpid(process, 0)[1] == signal.SIGKILL
    assert not (network / "records.csv").exists()
    for _ in range(2):  # the second time all is taken from the first
        messages = measure(network, data)
        assert len(computed) == 5 - after
        assert outputs(network) == outputs(finished)
    assert all("taken from an earlier run" in message for message in messages)


def test_every_snapshot_is_measured_for_the_series(data, tmp_path, computed):
    network = write_network(tmp_path, data, snapshots=3)
    measure(network, data, {"series": SERIES})
    assert computed == [("series", f"epoch-{epoch:03d}") for epoch in range(3)]
    records = read_records(network / "records.csv")
    assert {*records["checkpoint"]} == {f"epoch-{epoch:03d}" for epoch in range(3)}
    (network / "checkpoints/epoch-001.safetensors").unlink()
    with pytest.raises(FileError, match="epochs 1 are missing"):
        measure(network, data, {"series": SERIES})


def test_a_network_with_nan_logits_is_measured_as_nan_with_a_warning(data, tmp_path, capsys):
    network = write_network(tmp_path, data)
    write_checkpoint(network / "checkpoints/last.safetensors", data, 0, value=math.nan)
    measure(network, data)
    records = read_records(network / "records.csv")
    last = records[records["checkpoint"] == "last"]
    assert set(last["measure"]) == {*MEASURES}
    assert last["value"].isna().all()
    assert [*last[last["measure"] == "flatness"]["loss"]] == ["rloss"]  # as a column of models.csv
    assert records[records["checkpoint"] == "best"]["value"].notna().all()
    assert "NaN" in capsys.readouterr().err
