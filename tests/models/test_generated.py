"""Models drawn at random: each measure equals that of a plain implementation, or ends in one clear error."""

import os
from collections import Counter
from statistics import fmean

import pytest
import torch
from cases import Call, draw
from torch import nn
from torch.nn import functional as F
from torchvision import models

from robust_flatness.architectures.layers import SafeConv2d
from robust_flatness.attacks import PGD, random_start
from robust_flatness.errors import RobustFlatnessError
from robust_flatness.evaluation import evaluate_robustness
from robust_flatness.flatness import Neighborhood, average_flatness, hessian_eigenvalues, worst_flatness
from robust_flatness.network import Network
from robust_flatness.seeding import generator

MODELS = int(os.environ.get("ROBUST_FLATNESS_MODELS", "20"))  # `make test-models` draws 200
ATTACK = PGD(epsilon=0.05, step_size=0.02, steps=3)
BUDGET = ATTACK.epsilon, ATTACK.step_size
XI, WORST_XI, WEIGHT_STEP = 0.3, 0.02, 0.01
#: Why models were refused, by seed; "" for those that were measured.
outcomes: dict[int, str] = {}


def plain_hessian(model, names, x, y):
    """The extreme eigenvalues, of the whole matrix."""
    parameters = [p for name, p in model.named_parameters() if name in names and p.ndim > 1]
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        loss = F.cross_entropy(model(x.clone()), y)
        first = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
    rows = []
    for value in torch.cat([g.flatten() for g in first]):
        row = [torch.zeros_like(p) for p in parameters]
        if value.requires_grad:
            row = torch.autograd.grad(value, parameters, retain_graph=True, materialize_grads=True)
        rows.append(torch.cat([r.flatten() for r in row]))
    matrix = torch.stack(rows).detach()
    values = torch.linalg.eigvalsh((matrix + matrix.t()) / 2)
    return values[-1].item(), values[0].item()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("seed", range(MODELS))
def test_measures_equal_plain_ones(plain, seed):
    case = draw(seed)
    x, y = case.inputs(7)
    state = {name: t.clone() for name, t in case.model.state_dict().items()}
    images, modes = x.clone(), [m.training for m in case.model.modules()]
    close = {"rel": 1e-6, "abs": 1e-8} if case.dtype == torch.float64 else {"rel": 2e-3, "abs": 2e-3}
    try:
        robust = evaluate_robustness(case.model, x, y, attack=ATTACK, autoattack=False)
        average = average_flatness(case.model, x, y, attack=ATTACK, xi=XI, samples=2)
        options = {"attack": ATTACK, "xi": WORST_XI, "steps": 4, "restarts": 1, "reference": 0.0}
        worst = worst_flatness(case.model, x, y, weight_step=WEIGHT_STEP, **options)
        hessian = hessian_eigenvalues(case.model, x, y, k=2, tolerance=1e-6)
    except RobustFlatnessError as error:
        outcomes[seed] = f"{case.parts}: {error}"
        return
    finally:
        assert torch.equal(x, images)
        assert [m.training for m in case.model.modules()] == modes
        assert all(p.grad is None for p in case.model.parameters())
        for name, tensor in case.model.state_dict().items():
            assert torch.equal(tensor, state[name]), name
    outcomes[seed] = ""

    def copying():
        """The model anew, of a copy of the images, for it may change them, and safe from torch's crash."""
        model = nn.Sequential(Call(torch.clone), draw(seed).model.eval())
        for module in model.modules():
            module.__class__ = SafeConv2d if type(module) is nn.Conv2d else type(module)
        return model

    def rloss(stream):
        start = random_start(x, ATTACK.epsilon, stream)
        return fmean(plain.pgd_losses(copying(), x, y, [start], *BUDGET, ATTACK.steps))

    net = Network(case.model, x)
    ball, small = Neighborhood(net, XI), Neighborhood(net, WORST_XI)
    bare = lambda names: [name.replace("module.", "") for name in names]  # noqa: E731
    assert bare(ball.names) == bare(case.names)
    named = lambda nu: {f"1.{name}": shift for name, shift in zip(case.names, nu, strict=True)}  # noqa: E731
    nus = [named(ball.on_sphere(generator(0, "directions", sample, 0))) for sample in range(2)]
    starts = [random_start(x, ATTACK.epsilon, generator(0, "starts", sample)) for sample in range(2)]
    perturbed = plain.average_losses(copying(), x, y, nus, starts, *BUDGET, ATTACK.steps, 7)
    nu = named(small.in_ball(generator(0, "worst directions", 0, 0)))
    start = random_start(x, ATTACK.epsilon, generator(0, "worst starts", 0))
    at_worst = plain.worst_loss(copying(), x, y, nu, start, WORST_XI, WEIGHT_STEP, *BUDGET, 4, 7)
    assert robust.rloss_pgd == pytest.approx(rloss(generator(0, "pgd")), **close), case.parts
    expected = fmean(perturbed) - rloss(generator(0, "reference"))
    assert average.value == pytest.approx(expected, **close), case.parts
    assert worst.value == pytest.approx(at_worst, **close), case.parts
    # torch's second derivative of weight norm is wrong
    if case.dtype == torch.float64 and not any("weight norm" in part for part in case.parts):
        largest, smallest = plain_hessian(draw(seed).model.eval(), case.names, x, y)
        assert hessian.largest == pytest.approx(largest, rel=1e-4, abs=1e-6), case.parts
        assert hessian.smallest == pytest.approx(smallest, rel=1e-4, abs=1e-4 * largest), case.parts


def test_most_are_measured():
    """After the others."""
    if not outcomes:
        pytest.skip("no model was drawn in this process")
    reasons = [reason.split(": ")[-1] for reason in outcomes.values() if reason]
    assert len(reasons) <= len(outcomes) / 10, Counter(reasons)


#: Names, and the size of the images.
QUICK = {"resnet18": 32, "mobilenet_v3_small": 32, "squeezenet1_1": 33, "shufflenet_v2_x0_5": 32}
SLOW = {
    "mobilenet_v2": 32, "mnasnet0_5": 32, "regnet_y_400mf": 32, "vgg11_bn": 32, "densenet121": 32,
    "googlenet": 64, "efficientnet_b0": 32, "convnext_tiny": 32, "swin_t": 64, "vit_b_32": 64,
    "inception_v3": 96,
}  # fmt: skip
ONE_STEP = PGD(epsilon=0.03, step_size=0.015, steps=1)
NAMES = QUICK | (SLOW if os.environ.get("ROBUST_FLATNESS_MODELS") else {})


def made(name, size):
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    options |= {"image_size": size} if name.startswith("vit") else {}
    torch.manual_seed(0)
    model = models.get_model(name, weights=None, num_classes=5, **options)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return model


@pytest.mark.parametrize("name", NAMES)
def test_measured_as_by_the_module_itself(plain, name):
    model, size = made(name, NAMES[name]), NAMES[name]
    x = torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(0))
    y = torch.tensor([0, 3, 1])
    robust = evaluate_robustness(model, x, y, attack=ONE_STEP, autoattack=False)
    flat = average_flatness(model, x, y, attack=None, xi=0.1, samples=1)
    ball = Neighborhood(Network(model, x), 0.1)
    assert not any(".bn" in name or ".norm" in name for name in ball.names)
    start = random_start(x, ONE_STEP.epsilon, generator(0, "pgd"))
    losses = plain.pgd_losses(model, x, y, [start], ONE_STEP.epsilon, ONE_STEP.step_size, 1)
    # pixels whose gradient is zero up to rounding may take the other sign
    assert robust.rloss_pgd == pytest.approx(fmean(losses), rel=2e-3)
    with torch.no_grad():
        assert flat.reference == pytest.approx(F.cross_entropy(model(x), y).item(), rel=1e-4)
        for name, shift in zip(ball.names, ball.on_sphere(generator(0, "directions", 0, 0)), strict=True):
            model.get_parameter(name).add_(shift)
        moved = F.cross_entropy(model(x), y).item()
    assert flat.perturbed.item() == pytest.approx(moved, rel=1e-3)
