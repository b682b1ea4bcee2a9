"""The entry of the measures of sharpness: columns, splits, measures of one's own, errors."""

import numpy as np
import pytest
import torch
from torch import nn

from robust_flatness import sharpness as library
from robust_flatness.architectures import build_model
from robust_flatness.attacks import PGD
from robust_flatness.checkpoints import Checkpoint, Metadata
from robust_flatness.config import DataSpec, ModelSpec
from robust_flatness.data import Dataset
from robust_flatness.errors import UndefinedError, noted_warnings
from robust_flatness.measuring.registry import MEASURES
from robust_flatness.measuring.sharpness import NAMES, OF_WEIGHTS, SharpnessSpec, sharpness
from robust_flatness.seeding import derive_seed, generator
from robust_flatness.tables.schema import parse_name

ATTACK = {"epsilon": 0.1, "step_size": 0.05, "steps": 2}
QUICK = {"vectors": 2, "samples": 2, "steps": 2, "adaptive_steps": 2, "halvings": 2}


@pytest.fixture(scope="module")
def checkpoint():
    spec = ModelSpec(name="small-resnet", width=4)
    model = build_model(spec, 3, (0.4,), (0.3,), generator(5, "initialisation")).eval()
    known = Metadata(spec.model_dump(), 3, (0.4,), (0.3,), "at", 5, 0)
    return Checkpoint(model, "last", metadata=known)


@pytest.fixture(scope="module")
def dataset():
    rng = np.random.default_rng(0)
    images = {f"x_{s}": rng.integers(0, 256, (16, 1, 8, 8), dtype=np.uint8) for s in ("train", "test")}
    labels = {f"y_{s}": rng.integers(0, 3, 16) for s in ("train", "test")}
    return Dataset(images | labels)


def spec(**values):
    return SharpnessSpec(attack=ATTACK, train_examples=16, **QUICK | values)


def test_every_measure_has_its_columns_on_both_splits_and_losses(checkpoint, dataset):
    values = sharpness(checkpoint, dataset, spec(test_examples=8), seed=0).values
    expected = {
        f"{prefix}{name}_{loss}"
        for name in set(NAMES) - OF_WEIGHTS.keys()
        for prefix in ("", "test_")
        for loss in ("ce", "rloss")
    }
    assert expected | OF_WEIGHTS.keys() <= values.keys()
    assert expected | OF_WEIGHTS.keys() == {
        column.stem for column in MEASURES["sharpness"].columns if column.is_measure
    }
    assert all(parse_name(name) is not None for name in values)
    assert all(np.isfinite(value) for value in values.values())
    assert {"fisher_trace_ce_se", "test_hessian_trace_rloss_se"} <= values.keys()


def test_a_column_is_what_the_library_returns(checkpoint, dataset):
    values = sharpness(checkpoint, dataset, spec(measures="fisher_rao"), seed=3).values
    x, y = dataset.images("train"), dataset.labels("train")
    seed = derive_seed(3, "sharpness")
    assert values["fisher_rao_ce"] == library.fisher_rao(checkpoint.model, x, y, seed=seed).value
    attack = PGD(0.1, 0.05, 2)
    robust = library.fisher_rao(checkpoint.model, x, y, loss=attack, seed=seed)
    assert values["fisher_rao_rloss"] == robust.value
    assert values.keys() - {"sharpness_train_examples"} == {
        *("fisher_rao_ce", "fisher_rao_ce_se", "fisher_rao_rloss", "fisher_rao_rloss_se")
    }


def test_test_examples_may_be_measured_by_fewer_measures(checkpoint, dataset, tmp_path, monkeypatch):
    (tmp_path / "averages.py").write_text(
        "from robust_flatness.sharpness import SharpnessResult\n"
        "def mean(model, x, y, *, loss='ce', batch_size=128, seed=0):\n"
        "    return SharpnessResult(x.mean().item())\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    chosen = spec(measures="margin,fisher_rao", own={"mean": "averages:mean"}, test_examples=8)
    every = sharpness(checkpoint, dataset, chosen, seed=0).values
    fewer = chosen.model_copy(update={"test_measures": ("margin", "mean")})
    values = sharpness(checkpoint, dataset, fewer, seed=0).values
    assert values == {name: value for name, value in every.items() if not name.startswith("test_fisher")}
    assert values["test_mean_ce"] == pytest.approx(dataset.images("test", 8).mean().item())
    passes = MEASURES["sharpness"].passes
    assert passes(spec(measures="margin"), 0, 0) < passes(fewer, 0, 0) < passes(chosen, 0, 0)


class Vector(nn.Module):
    """A network without a matrix, or a linear layer at its end."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(63))

    def forward(self, x):
        return (x.flatten(1)[:, :63] * self.scale).view(len(x), 3, 21).sum(2)


def test_what_is_not_defined_for_a_network_is_left_out_of_all_and_an_error_by_name(dataset):
    network, undefined = Checkpoint(Vector(), "own"), ("relative_flatness", "spectral_product")
    with noted_warnings(show=False) as notes:
        values = sharpness(network, dataset, spec(), seed=0).values
    assert {note.partition(":")[0] for note in notes} == {*undefined}
    measured = {name.removesuffix("_ce") for name in values if name.endswith("_ce")}
    assert measured == {*NAMES} - {*undefined, *OF_WEIGHTS}
    for name in undefined:
        with pytest.raises(UndefinedError, match="model: "):
            sharpness(network, dataset, spec(measures=name), seed=0)


@pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore::DeprecationWarning")
def test_weights_of_a_scripted_network_cannot_be_exchanged(dataset):
    network = Checkpoint(torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval()), "own")
    with pytest.raises(UndefinedError, match="it is scripted"):
        sharpness(network, dataset, spec(measures="fisher_rao"), seed=0)


def test_initial_weights_are_drawn_again(checkpoint, dataset):
    values = sharpness(checkpoint, dataset, spec(measures="distance_from_init"), seed=0).values
    assert values["distance_from_init"] == 0
    with torch.no_grad():
        moved = build_model(ModelSpec(name="small-resnet", width=4), 3, (0.4,), (0.3,), generator(6, "x"))
    other = Checkpoint(moved.eval(), "last", metadata=checkpoint.metadata)
    assert (
        sharpness(other, dataset, spec(measures="distance_from_init"), seed=0).values["distance_from_init"]
        > 1
    )


def test_a_measure_of_ones_own(checkpoint, dataset, tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from robust_flatness.sharpness import SharpnessResult\n"
        "def examples(model, x, y, *, loss='ce', batch_size=128, seed=0):\n"
        "    return SharpnessResult(float(len(x)) + (loss != 'ce'))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    values = sharpness(
        checkpoint, dataset, spec(measures="margin", own={"counted": "mine:examples"}), seed=0
    ).values
    assert (values["counted_ce"], values["counted_rloss"]) == (16, 17)


def test_problems_are_said_before_anything_runs():
    data = DataSpec(name="digits", train=50, early_stopping=50, test=50)
    own = {"sam": "a:b", "no good": "a:b", "test_mean": "a:b", "fine": "a.b"}
    problems = list(spec(measures="sam,fisher", own=own).problems(data))
    assert any("unknown measure 'fisher'; known are hessian_eigenvalue" in line for line in problems)
    assert sum("cannot name a measure" in line for line in problems) == 3
    assert any("own.fine: 'a.b' given; expected package.module:function" in line for line in problems)
    problems = [
        *spec(measures="sam,weight_norm", test_measures="sam,asam,weight_norm", test_examples=8).problems(
            data
        )
    ]
    assert len(problems) == 2
    assert "test_measures: 'asam' is not measured on examples; those that are: sam" in problems[0]
    with pytest.raises(ValueError, match="smaller one first"):
        spec(worst_rho=[0.2, 0.1])


def test_time_limits_grow_with_what_is_asked_for():
    few, many = spec(measures="margin"), spec()
    assert MEASURES["sharpness"].passes(many, 0, 0) > 10 * MEASURES["sharpness"].passes(few, 0, 0)


@pytest.mark.parametrize("given", [{"test_measures": "sam"}, {"test_measures": [], "test_examples": 8}])
def test_measures_on_test_examples_without_examples_or_measures_are_refused(given):
    data = DataSpec(name="digits", train=50, early_stopping=50, test=50)
    assert any("test_measures" in line for line in spec(**given).problems(data))
    assert not [*spec(test_measures="sam", test_examples=8).problems(data)]
