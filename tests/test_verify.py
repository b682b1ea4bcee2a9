"""`robust-flatness verify`: equal results are identical, changed ones are found."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from robust_flatness import cli
from robust_flatness.errors import FileError
from robust_flatness.run.verify import compared, verify_network
from robust_flatness.tables.records import read_network, read_records
from robust_flatness.tables.records import write_network as write_records
from untrained import MEASURES, measure, write_data, write_network


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """An experiment of three networks, one of which has been measured for real."""
    root = tmp_path_factory.mktemp("results") / "mine"
    data = write_data(root)
    folder = write_network(root, data)
    measure(folder, data, MEASURES)
    for variant in ("b", "c"):
        shutil.copytree(folder, root / variant / "seed-0")
    return root


@pytest.fixture
def results(made, tmp_path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "mine"))


def edit(path: Path, metric: str = "", amount: float = 0.0, **header) -> Path:
    """Add `amount` to a metric of the early-stopped checkpoint; change the header of the records."""
    provenance, _ = read_network(path)
    frame = read_records(path)
    rows = (frame["metric"] == metric) & (frame["checkpoint"] == "best") & (frame["split"] == "test")
    assert rows.sum() == bool(metric)
    frame.loc[rows, "value"] += amount
    write_records(path, provenance | header, frame.replace(np.nan, None).to_dict("records"))
    return path


def test_on_this_machine_records_are_identical_unless_changed(results):
    path = results / "at/seed-0/records.csv"
    agreement = verify_network(path)
    assert agreement == (True, f"{path}: {len(read_records(path))} records, identical")
    edit(path, "rloss_pgd", 0.1)
    done = CliRunner().invoke(cli.app, ["verify", str(results), "--sample", "0"])
    assert [line.split()[-1] for line in done.output.splitlines()[1:]] == ["identical", "identical"]
    assert all(text in done.output.splitlines()[0] for text in ("DIFFER", "best, robustness, rloss_pgd"))
    assert done.exit_code == 1
    assert sorted(path.name for path in path.parent.iterdir()) == [
        ".resume", "checkpoints", "examples.csv", "history.csv", "records.csv",
    ]  # fmt: skip


@pytest.fixture
def against(made, results):
    """`against(metric, amount)`: the agreement of changed records with those that were measured."""
    path = results / "at/seed-0/records.csv"
    return lambda *change: compared(edit(path, *change), made / "at/seed-0/records.csv")


@pytest.mark.parametrize(("amount", "agrees"), [(0.005, True), (0.1, False), (np.nan, False)])
def test_losses_agree_within_a_hundredth(against, amount, agrees):
    assert against("rloss_pgd", amount)[0] is agrees


@pytest.mark.parametrize(("examples", "agrees"), [(2, True), (3, False)])
def test_errors_agree_within_two_examples(against, examples, agrees):
    """Each of 10 examples is 10 % of the error."""
    assert against("rerr_pgd", 10 * examples)[0] is agrees


def test_other_weights_or_data_are_refused(results):
    path = results / "at/seed-0/records.csv"
    described = read_network(path)[0]["checkpoints"]
    edit(path, checkpoints=described | {"last": described["last"] | {"sha256": "0" * 64}})
    with pytest.raises(FileError, match=r"last\.safetensors: not the checkpoint measured"):
        verify_network(path)
    edit(path, data_sha256="0" * 64)
    with pytest.raises(FileError, match=r"seed-0\.safetensors: not the data measured"):
        verify_network(path)
