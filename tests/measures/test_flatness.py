import copy

import pytest
import torch
from torch import nn

from robust_flatness.attacks import PGD
from robust_flatness.config import AttackSpec
from robust_flatness.flatness import average_flatness, scale_convolutions, worst_flatness
from robust_flatness.measures.landscape import CURVES, LandscapeSettings
from robust_flatness.measures.surfaces import loss_landscape
from robust_flatness.seeding import generator


def small(measure, **options):
    """Few samples or restarts."""
    defaults = {"samples": 3} if measure is average_flatness else {"restarts": 2, "steps": 5}
    return {**defaults, **options}


BOTH = pytest.mark.parametrize("measure", [average_flatness, worst_flatness])


@pytest.mark.parametrize("scope", ["dataset", "batch"])
def test_worst_case_is_at_least_the_average_case(trained, held_out, attack, scope):
    for used in (attack, None):
        common = {"attack": used, "xi": 0.003, "batch_size": 30, "scope": scope}
        average = average_flatness(trained, *held_out, samples=3, **common)
        assert worst_flatness(trained, *held_out, restarts=2, **common).value >= average.value


def test_average_case_tends_to_the_bias_of_a_single_start(trained, held_out):
    attack = PGD(0.1, 0.1, 2, restarts=6)  # so weak that starts matter
    result = average_flatness(trained, *held_out, attack=attack, xi=1e-6, samples=20)
    bias = result.reference_single - result.reference
    assert bias < 0
    # the mean of 20 single starts against one more: difference of independent means
    assert abs(result.value - bias) < 4 * result.std * (1 + 1 / 20) ** 0.5
    assert result.value < 0


def test_average_case_over_batches_is_weighted_by_examples(trained, held_out):
    """Without an attack nothing but the perturbation of a batch enters its loss."""
    x, y = held_out
    options = {"attack": None, "samples": 2, "scope": "batch", "reference": 0.0, "batch_size": 40}
    whole = average_flatness(trained, x[:50], y[:50], **options).perturbed
    first = average_flatness(trained, x[:40], y[:40], **options).perturbed
    repeated = torch.cat([x[:40], x[40:50].repeat(4, 1, 1, 1)]), torch.cat([y[:40], y[40:50].repeat(4)])
    second = 2 * average_flatness(trained, *repeated, **options).perturbed - first
    torch.testing.assert_close(whole, (40 * first + 10 * second) / 50, rtol=1e-6, atol=0)


@BOTH
def test_invariant_to_the_scale_of_the_convolutions(trained, held_out, attack, measure):
    options = {"attack": attack, "seed": 1, **small(measure)}
    before = measure(trained, *held_out, **options)
    after = measure(scale_convolutions(trained, 2.0), *held_out, **options)
    assert abs(before.value) > 0.01
    assert after.value == pytest.approx(before.value, rel=0.01)


@BOTH
def test_same_seed_same_result(trained, held_out, attack, measure):
    state = torch.get_rng_state()
    first, second, other = (
        measure(trained, *held_out, attack=attack, seed=seed, **small(measure)) for seed in (5, 5, 6)
    )
    assert first.value == second.value
    assert torch.equal(first.perturbed, second.perturbed)
    assert not torch.equal(first.perturbed, other.perturbed)
    assert torch.equal(state, torch.get_rng_state())


def test_average_case_is_the_mean_over_samples_with_its_spread(trained, held_out, attack):
    result = average_flatness(trained, *held_out, attack=attack, samples=4)
    values = result.perturbed - result.reference
    assert result.value == pytest.approx(values.mean().item(), rel=1e-9)
    assert result.std == pytest.approx(values.std().item())
    assert result.standard_error == pytest.approx(values.std().item() / 2)
    single = average_flatness(trained, *held_out, attack=attack, samples=1)
    assert single.std is single.standard_error is None
    assert single.perturbed[0] == result.perturbed[0]


@BOTH
def test_bfloat16_stays_within_a_few_per_cent(trained, held_out, attack, measure):
    full, low = (
        measure(trained, *held_out, attack=attack, precision=precision, **small(measure))
        for precision in ("float32", "bfloat16")
    )
    assert low.reference == pytest.approx(full.reference, rel=0.01)
    torch.testing.assert_close(low.perturbed, full.perturbed, rtol=0.03, atol=0)
    assert low.reference != full.reference


@BOTH
@pytest.mark.parametrize(("field", "value"), [("xi", 0), ("scope", "epoch"), ("precision", "half")])
def test_arguments_out_of_range_are_named(trained, held_out, attack, measure, field, value):
    with pytest.raises(ValueError, match=rf"(?s){field}.*'?{value}'?"):
        measure(trained, *held_out, attack=attack, **{field: value})


@pytest.mark.parametrize("s", [0.5, 2.0])
def test_outputs_stay_and_weights_scale(trained, held_out, s):
    scaled = scale_convolutions(trained, s)
    # the batch norms' eps of 1e-5 makes the difference
    torch.testing.assert_close(scaled(held_out[0]), trained(held_out[0]), rtol=1e-2, atol=1e-2)
    factors = {"stem.weight": s, "stem.bias": s, "classifier.weight": 1, "stem_norm.weight": 1}
    for name, factor in factors.items():
        assert torch.equal(scaled.get_parameter(name), factor * trained.get_parameter(name))
    exact = copy.deepcopy(trained).double()
    for module in exact.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
    x = held_out[0].double()
    torch.testing.assert_close(scale_convolutions(exact, s)(x), exact(x), rtol=1e-9, atol=1e-9)


def test_a_weight_of_two_convolutions_is_scaled_once():
    layers = (nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2))
    model = nn.Sequential(*layers)
    model[2].weight = model[0].weight
    assert torch.equal(scale_convolutions(model, 2.0)[2].weight, 2 * model[0].weight)


def test_refuses_what_would_change_the_outputs():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Conv2d(2, 3, 3), nn.Flatten())
    with pytest.raises(ValueError, match="no batch norm after the convolution 2"):
        scale_convolutions(model, 2.0)


def test_landscape_at_zero_is_rloss(trained, held_out):
    attack = PGD(0.1, 0.05, 3)
    settings = LandscapeSettings(
        points=3, random_directions=3, adversarial_directions=2, adversarial_steps=3, examples=60,
        attack=AttackSpec(epsilon=0.1, step_size=0.05, steps=3),
    )  # fmt: skip
    few = (held_out[0][:10], held_out[1][:10])
    records = loss_landscape(trained, *held_out, settings=settings, held_out=few, seed=2)
    curves = [record for record in records if not record.metric.endswith("_std")]
    assert len(curves) == 3 * len(CURVES)
    assert {record.metric for record in curves} == {*CURVES.values()}
    rloss = attack(trained, *held_out, generator=generator(2, "landscape starts")).loss.mean().item()
    assert all(r.value == pytest.approx(rloss, rel=1e-6) for r in curves if r.coordinate == 0)
    scales = {record.metric.partition("_")[0]: record.xi for record in curves}
    assert scales == {"random": 0.5, "adversarial": 0.025, "hessian": 0.5}
    ends = [r for r in records if r.coordinate != 0 and r.metric.startswith("random")]
    assert len(ends) == 8
    assert all(r.value > (0 if r.metric.endswith("_std") else rloss) for r in ends)
    assert next(r for r in curves if r.metric == "adversarial_layer" and r.coordinate == 1).value > rloss
