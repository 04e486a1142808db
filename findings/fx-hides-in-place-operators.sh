#!/usr/bin/env bash
# torch.fx records an in-place operator of Python as the ordinary one.
#
# Version    torch 2.13.0, CPU, Python 3.11.
# Input      a module whose forward pass says `y *= 2`, where y is its input.
# Expected   a graph that tells that the input is overwritten: operator.imul, or an error.
# Seen       the graph holds operator.mul. The module changes its caller's tensor, and the traced module does not.
#            A method such as y.mul_(2) is recorded as it is.
# Hurts      whoever decides from a trace whether a tensor may be shared: a pass that removes the module before the
#            operator makes it write to another tensor than before, and the trace shows nothing.
# Instead    treat +, -, * and / behind a removed module as if they wrote to their first operand.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'torch==2.13.0' numpy
cat > "$folder/run.py" <<'PY'
import operator

import torch
from torch import fx, nn


class Doubled(nn.Module):
    def forward(self, y):
        y *= 2
        return y


class DoubledByMethod(nn.Module):
    def forward(self, y):
        return y.mul_(2)


def change(module):
    x = torch.ones(3)
    module(x)
    return x[0].item()


traced = fx.symbolic_trace(Doubled())
targets = [node.target for node in traced.graph.nodes if node.op == "call_function"]
print("operator in the graph:", targets[0].__name__)
print("the caller's 1 after the module:", change(Doubled()), "after the traced module:", change(traced))
assert targets == [operator.mul]
assert change(Doubled()) == 2 and change(traced) == 1
methods = [n.target for n in fx.symbolic_trace(DoubledByMethod()).graph.nodes if n.op == "call_method"]
assert methods == ["mul_"]
PY
"$folder/venv/bin/python" "$folder/run.py"
