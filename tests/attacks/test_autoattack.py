import copy

import pytest
import torch
from torch import nn

import robust_flatness.attacks.autoattack as module
from robust_flatness.architectures import build_model
from robust_flatness.attacks import apgd
from robust_flatness.attacks.autoattack import run_autoattack
from robust_flatness.attacks.pgd import PGD, cross_entropy
from robust_flatness.config import AutoAttackSpec, ModelSpec
from robust_flatness.network import Network

EPSILON = 0.02
ATTACKS = ["apgd-ce", "apgd-t", "fab-t", "square"]
SPEC = AutoAttackSpec(version="reduced", attacks=ATTACKS, iterations=3, queries=20)


def make_model(classes=5):
    g = torch.Generator().manual_seed(0)
    model = build_model(ModelSpec(name="small-resnet", width=4), classes, [0.5], [0.3], g)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_var.fill_(0.2)
    return model


@pytest.fixture(scope="module")
def setup():
    model = make_model()
    x = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = copy.deepcopy(model).eval()(x).argmax(dim=1)
    y[:5] = (y[:5] + 1) % 5  # five are misclassified when clean
    return model, x, y


def test_adversarial_examples_are_admissible_and_fool_the_model(setup):
    model, x, y = setup
    result = run_autoattack(model, x, y, EPSILON, SPEC)
    assert (result.x_adv - x).abs().max() <= EPSILON + 1e-6
    assert result.x_adv.min() >= 0
    assert result.x_adv.max() <= 1
    logits = Network(model)(result.x_adv).detach()
    assert torch.equal(logits.argmax(dim=1) != y, result.error)
    torch.testing.assert_close(result.loss, cross_entropy(logits, y))
    assert result.error[:5].all()
    assert torch.equal(result.x_adv[:5], x[:5])
    assert torch.equal(result.x_adv[~result.error], x[~result.error])
    assert 5 < result.error.sum() < len(x)
    assert SPEC.description == "AutoAttack (reduced: apgd-ce+apgd-t+fab-t+square, 3 iterations, 1 restart)"


def test_leaves_no_trace_and_repeats(setup, capfd, caplog):
    model, x, y = setup
    random = torch.get_rng_state()
    first, second = (run_autoattack(model, x, y, EPSILON, SPEC, seed=3) for _ in range(2))
    assert torch.equal(first.x_adv, second.x_adv)
    assert torch.equal(random, torch.get_rng_state())
    captured = capfd.readouterr()
    assert captured.out == captured.err == caplog.text == ""


def test_resumes_after_the_last_finished_attack(setup, tmp_path, monkeypatch):
    model, x, y = setup
    path = tmp_path / "state"
    whole = run_autoattack(model, x, y, EPSILON, SPEC)
    started = []
    make = module._attack

    def interrupted(net, name, *rest):
        started.append(name)
        if name == "fab-t" and started.count("fab-t") == 1:
            raise KeyboardInterrupt
        return make(net, name, *rest)

    monkeypatch.setattr(module, "_attack", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_autoattack(model, x, y, EPSILON, SPEC, state_path=path)
    resumed = run_autoattack(model, x, y, EPSILON, SPEC, state_path=path)
    assert started == ["apgd-ce", "apgd-t", "fab-t", "fab-t", "square"]
    assert torch.equal(resumed.x_adv, whole.x_adv)
    assert torch.equal(resumed.error, whole.error)
    again = run_autoattack(model, x, y, EPSILON, SPEC, state_path=path)
    assert len(started) == 5
    assert torch.equal(again.error, whole.error)


@pytest.mark.parametrize("change", ["model", "seed", "truncated"])
def test_a_state_of_something_else_is_not_used(setup, tmp_path, change):
    model, x, y = setup
    spec = AutoAttackSpec(version="reduced", attacks=["apgd-ce"], iterations=2)
    path = tmp_path / "state"
    run_autoattack(model, x, y, EPSILON, spec, state_path=path)
    seed = int(change == "seed")
    if change == "model":
        model = copy.deepcopy(model)
        model.classifier.bias.data += 0.1
    elif change == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    resumed = run_autoattack(model, x, y, EPSILON, spec, seed=seed, state_path=path)
    fresh = run_autoattack(model, x, y, EPSILON, spec, seed=seed)
    assert torch.equal(resumed.x_adv, fresh.x_adv)


@pytest.mark.parametrize(("norm", "called"), [("linf", "Linf"), ("l2", "L2")])
def test_the_standard_budget_is_the_librarys(norm, called):
    from pyautoattack import AutoAttack

    x = torch.rand(2, 1, 8, 8)
    net = Network(make_model(10), x)
    library = AutoAttack(net, norm=called, version="standard", eps=EPSILON, seed=0)
    spec = AutoAttackSpec()
    assert list(spec.attacks) == library.attacks_to_run
    targets = module.check_autoattack(net, x, spec)
    for attack in (library.apgd, library.apgd_targeted):
        assert (attack.n_iter, attack.n_iter_orig) == (spec.iterations, spec.iterations)
        assert (attack.n_restarts, attack.thr_decr) == (spec.restarts, apgd.RISING)
        assert (attack.norm, attack.eps, attack.eot_iter) == (called, EPSILON, 1)
    assert library.apgd_targeted.n_target_classes == targets
    budget = ("n_restarts", "n_iter", "n_queries", "n_target_classes", "eps", "norm")
    for name, theirs in (("fab-t", library.fab), ("square", library.square)):
        ours = module._attack(net, name, EPSILON, spec, targets, 0, x.device, norm).__self__
        for field in budget:
            assert getattr(ours, field, None) == getattr(theirs, field, None), (name, field)
    assert spec.description == "AutoAttack (standard)"


def test_examples_fooled_by_pgd_count_and_are_not_attacked_again(setup, monkeypatch):
    model, x, y = setup
    found = PGD(EPSILON, EPSILON / 4, 10)(model, x, y)
    spec = AutoAttackSpec(version="reduced", attacks=["pgd"])
    result = run_autoattack(model, x, y, EPSILON, spec, known=found.x_adv)
    fooled = Network(model)(found.x_adv).argmax(dim=1) != y
    assert torch.equal(result.error, fooled)
    assert torch.equal(result.x_adv[5:][fooled[5:]], found.x_adv[5:][fooled[5:]])
    attacked, attack = [], module._attack

    def counting(predict, name, *rest):
        run = attack(predict, name, *rest)
        return run and (lambda x, y: attacked.append(len(x)) or run(x, y))

    monkeypatch.setattr(module, "_attack", counting)
    more = AutoAttackSpec(version="reduced", attacks=["pgd", "apgd-ce"], iterations=5)
    both = run_autoattack(model, x, y, EPSILON, more, known=found.x_adv)
    assert (both.error >= result.error).all()
    assert attacked == [(~result.error).sum()]
