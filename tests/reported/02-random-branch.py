"""A randomised defence that draws in Python (random resize, random member of an ensemble): the trace keeps
the draw of the moment, and if the check happens to draw alike the defence is measured as deterministic.
Right: outputs keep varying (plain copy), or an error that names randomness. Got: one output in 50 calls for some seeds."""
import random, sys, torch
from torch import nn
from robust_flatness.network import Network
torch.set_num_threads(1)

class Switch(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Linear(64, 10), nn.Linear(64, 10)
    def forward(self, x):
        return (self.a if random.random() < 0.5 else self.b)(x.flatten(1))

x = torch.rand(2, 1, 8, 8)
frozen = 0
for seed in range(10):
    random.seed(seed)
    net = Network(Switch(), x)
    frozen += len({tuple(net(x[:1])[0].tolist()) for _ in range(50)}) == 1
print(f"{frozen} of 10 became deterministic")
sys.exit(frozen > 0)
