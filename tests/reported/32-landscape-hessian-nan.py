"""Landscape along the Hessian's eigenvector: one-dimensional tensors (biases, scales of LayerNorm/GroupNorm) have no part
in it, so their direction is 0; _normalised multiplies it by scale ||w|| / tiny, which is inf for ||w|| > 8 / (2 scale),
and 0 * inf = NaN. Got: NaN for the whole curve, at s = 0 too, for LayerNorm(128) (its scale has norm sqrt(128) = 11.3) or
a bias of norm 13; no word. Right: at s = 0 the robust loss 1.5 or so, "a part of norm 0 stays 0" as documented."""
import math, sys, torch
from torch import nn
from robust_flatness.config import AttackSpec
from robust_flatness.flatness import loss_landscape
from robust_flatness.measures.landscape import LandscapeSettings
torch.set_num_threads(1)
g = torch.Generator().manual_seed(0)
x, y = torch.rand(16, 1, 8, 8, generator=g), torch.randint(4, (16,), generator=g)
settings = LandscapeSettings(points=3, attack=AttackSpec(epsilon=0.1, step_size=0.03, steps=2), random_directions=1, adversarial_directions=1, adversarial_steps=2, examples=8)
def norm(width): return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.LayerNorm(width), nn.GELU(), nn.Linear(width, 4))
bias = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 4))
with torch.no_grad(): bias[3].bias.copy_(torch.tensor([10.0, 9, 0, 0]))
bad = 0
for name, m in {"LayerNorm(32)": norm(32), "LayerNorm(128)": norm(128), "bias of norm 13": bias}.items():
    curve = [r.value for r in loss_landscape(m, x[:8], y[:8], settings=settings, held_out=(x, y)) if r.metric.startswith("hessian")]
    bad += any(map(math.isnan, curve)); print(name, [round(v, 3) for v in curve])
sys.exit(bad > 0)
