"""Models in bfloat16. Got: AutoAttack: TypeError "Got unsupported ScalarType BFloat16" (autoattack._fingerprint calls
.numpy()); flatness: `reference` is a mean in bfloat16 (three digits) while the perturbed losses are summed in double, so
that worst-case flatness is off by a tenth of its value. Right: AutoAttack's error rate; reference = mean in double."""
import sys, torch
from torch import nn
from robust_flatness.attacks import PGD
from robust_flatness.config import AutoAttackSpec
from robust_flatness.evaluation import evaluate_robustness
from robust_flatness.flatness import worst_flatness
from robust_flatness.attacks.pgd import losses_of
from robust_flatness.network import Network
torch.set_num_threads(1); torch.manual_seed(0)
net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)).bfloat16()
g = torch.Generator().manual_seed(0)
x, y = torch.rand(200, 1, 8, 8, generator=g).bfloat16(), torch.randint(10, (200,), generator=g)
bad = 0
result = worst_flatness(net, x, y, attack=None, xi=0.003, steps=5, restarts=2)
right = losses_of(Network(net, x[:2]), x, y, None, x).double().mean().item()
print(f"reference {result.reference}, mean in double {right:.6f}; worst flatness {result.value:.5f}, right {result.value + result.reference - right:.5f}")
bad += abs(result.reference - right) > 1e-4
spec = AutoAttackSpec(version="reduced", attacks=("apgd-ce",), iterations=3)
try:
    print(evaluate_robustness(net, x[:8], y[:8], attack=PGD(epsilon=0.1, step_size=0.05, steps=2), autoattack=spec).rerr_aa)
except Exception as error:
    bad += 1; print(type(error).__name__, error)
sys.exit(bad > 0)
