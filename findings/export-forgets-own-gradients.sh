#!/usr/bin/env bash
# torch.export keeps what a torch.autograd.Function computes and forgets its backward method.
#
# Version    torch 2.13.0, CPU, Python 3.11.
# Input      a module that calls an autograd.Function: forward x^2, backward by the rule of a straight-through estimator
#            (the gradient passes as it is).
# Expected   the gradient of the exported program is that of the module, or export refuses.
# Seen       the exported program holds the operators of forward alone, and its gradient is theirs: 2x. No warning.
# Hurts      whoever exports a training step with quantisers, gradient reversal, or gradients written by hand because
#            those of the operators are unstable, such as that of eigh for repeated eigenvalues.
# Instead    register an operator with torch.library.custom_op and register_autograd: its formula is kept.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'torch==2.13.0' numpy
cat > "$folder/run.py" <<'PY'
import warnings

import torch
from torch import nn


class Squared(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * x

    @staticmethod
    def backward(ctx, grad):
        return grad


class Module(nn.Module):
    def forward(self, x):
        return Squared.apply(x)


def gradient(module):
    x = torch.tensor([3.0], requires_grad=True)
    module(x).sum().backward()
    return x.grad.item()


with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    program = torch.export.export(Module(), (torch.tensor([3.0], requires_grad=True),)).module()
told = [str(w.message) for w in caught if "backward" in str(w.message) or "autograd" in str(w.message)]
print("gradient of the module:", gradient(Module()), "of the exported program:", gradient(program), "told:", told)
assert gradient(Module()) == 1
assert gradient(program) == 6
assert not told
PY
"$folder/venv/bin/python" "$folder/run.py"
