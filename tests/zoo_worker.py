"""A visit of three small networks; started by test_zoo.py, in a process whose autograd has not begun, for it forks."""

import sys
import warnings
from pathlib import Path

import torch
from torch import nn

from ndlib.experiments import zoo
from ndlib.experiments.zoo_networks import Network


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)

    def forward(self, x):
        return self.last(self.norm(self.conv(x)).relu_())


class Broken(Small):
    def forward(self, x):
        raise ArithmeticError("of its own")


class Writes(Small):
    """Changes what it is given."""

    def forward(self, x):
        return super().forward(x.add_(1))


NETWORKS = {"small": Small, "broken": Broken, "writes": Writes}


def build(network):
    x = torch.randn(2, 3, 16, 16)
    return NETWORKS[network.name](), (x,), (x,)


warnings.simplefilter("ignore")
zoo.build = build
zoo.catalogue = lambda family: (Network("timm", name, name) for name in NETWORKS)
for line in zoo.visit(Path(sys.argv[1]), ["timm"]):
    print(line)
