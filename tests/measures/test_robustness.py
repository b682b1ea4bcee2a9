import numpy as np
import pytest
from torch.nn import functional as F

from robust_flatness.architectures import build_model
from robust_flatness.attacks import PGD
from robust_flatness.config import AutoAttackSpec, DataSpec, ModelSpec
from robust_flatness.data import Dataset
from robust_flatness.evaluation import evaluate_robustness
from robust_flatness.measures.base import Examples
from robust_flatness.measures.other_radii import METRICS, OtherRadiiSettings, other_radii
from robust_flatness.measures.robustness import RobustnessSettings, robustness
from robust_flatness.network import Network
from robust_flatness.seeding import generator

ATTACK = PGD(epsilon=0.1, step_size=0.05, steps=4, restarts=2)
SPEC = AutoAttackSpec(version="reduced", attacks=["apgd-ce"], iterations=4)


@pytest.fixture
def setup(trained, held_out):
    """Images classified correctly, but for the labels of the first three."""
    x = held_out[0][:30]
    y = trained(x).argmax(dim=1)
    y[:3] = (y[:3] + 1) % 10
    return trained, x, y


def test_values_and_their_order(setup):
    model, x, y = setup
    result = evaluate_robustness(model, x, y, attack=ATTACK, autoattack=SPEC)
    logits = model(x).detach()
    assert result.err == pytest.approx(0.1)
    assert result.ce == pytest.approx(F.cross_entropy(logits, y).item(), rel=1e-5)
    assert result.err < result.rerr_pgd < 1
    assert result.err < result.rerr_aa < 1
    assert result.rloss_pgd > result.ce
    assert result.ce < result.rloss_aa < result.rloss_pgd  # AutoAttack stops at the first success
    for losses in (result.clean, result.pgd, result.autoattack):
        assert losses.error.shape == losses.loss.shape == (30,)
        assert losses.error[:3].all()
    assert (result.pgd.loss >= result.clean.loss).all()
    assert (result.pgd.error >= result.clean.error).all()


def test_attacks_that_are_not_asked_for_are_not_run(setup):
    model, x, y = setup
    clean = evaluate_robustness(model, x, y, attack=None)
    assert clean.rerr_pgd is clean.rloss_pgd is clean.rerr_aa is clean.rloss_aa is None
    assert clean.err == pytest.approx(0.1)


def test_means_are_over_the_first_examples_of_those_recorded():
    model = build_model(ModelSpec(name="small-resnet", width=4), 3, (0.4,), (0.3,), generator(5, "init"))
    rng = np.random.default_rng(0)
    images = {"x_test": rng.integers(0, 256, (20, 1, 8, 8), dtype=np.uint8), "y_test": rng.integers(0, 3, 20)}
    counts = {"test_examples": 10, "clean_test_examples": 10, "train_examples": 0, "clean_train_examples": 0}
    given = {"attack": {"epsilon": 0.1, "step_size": 0.05, "steps": 3, "restarts": 1}, "autoattack": None}
    results = []
    for recorded in (0, 20):
        data = Examples(Dataset(images))
        settings = RobustnessSettings(**given, **counts, recorded_test_examples=recorded, batch_size=10)
        results.append((list(robustness(Network(model), data, settings)), data.example_values["test"]))
    (few, single), (records, values) = results
    assert records == few
    assert (len(values["rloss"]), values["rloss"][:10]) == (20, single["rloss"])
    (found,) = [(record.n, record.value) for record in records if record.metric == "rloss_pgd"]
    assert found == (10, pytest.approx(np.mean(single["rloss"]), rel=1e-5))
    settings = settings.model_copy(update={"recorded_test_examples": 21})
    (problem,) = settings.problems(DataSpec(name="digits", train=20, early_stopping=10, test=20))
    assert problem == "recorded_test_examples: 21 examples requested, but data.test has 20"


@pytest.mark.parametrize(("norm", "largest"), [("linf", 1.0), ("l2", 2.0)])
def test_error_grows_with_the_radius_which_is_at_most_one_in_the_linf_norm(norm, largest):
    model = build_model(ModelSpec(name="small-resnet", width=4), 3, (0.4,), (0.3,), generator(5, "init"))
    rng = np.random.default_rng(0)
    images = {"x_test": rng.integers(0, 256, (40, 1, 8, 8), dtype=np.uint8)}
    data = Examples(Dataset(images | {"y_test": rng.integers(0, 3, 40)}))
    attack = {"norm": norm, "epsilon": 0.1, "step_size": 0.05, "steps": 3}
    settings = OtherRadiiSettings(attack=attack, test_examples=40, factors=[0.01, 0.25, 20])
    records = [r for r in other_radii(Network(model), data, settings) if r.metric == "rerr_pgd_eps"]
    assert [record.coordinate for record in records] == [0.01, 0.25, 20]
    assert [record.epsilon for record in records] == pytest.approx([0.001, 0.025, largest])
    errors = [record.value for record in records]
    assert errors == sorted(errors)
    assert errors[0] < errors[-1]
    of_examples = [data.example_values[f"test_eps_{r.coordinate:g}"]["rerr_pgd"] for r in records]
    assert [100 * np.mean(values) for values in of_examples] == pytest.approx(errors)
    assert METRICS["rerr_pgd_eps"].words("test", radius=0.25) == "test RErr, PGD (%) at 0.25 ε"
