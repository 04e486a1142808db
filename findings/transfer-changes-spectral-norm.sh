#!/usr/bin/env bash
# torch.nn.utils.parametrize.transfer_parametrizations_and_params changes what spectral_norm computes, in both layers.
#
# Version    torch 2.13.0, CPU, Python 3.11.
# Input      a convolution with parametrizations.spectral_norm, as new, and a new convolution of the same shape.
# Expected   after the transfer the second one computes the weight of the first, as the parameter is transferred.
# Seen       its weight is another one, by tens of per cent, and so is the first one's from then on: registering the
#            parametrisation on the new layer runs a power iteration with that layer's random weight, and the two
#            layers share the vectors that it writes to.
# Hurts      whoever replaces layers of a network by others and moves their parametrisations along.
# Instead    copy parametrizations.weight.state_dict() before the transfer, and load it into the second layer after.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'torch==2.13.0' numpy
cat > "$folder/run.py" <<'PY'
import copy

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm


def difference(layer, wanted):
    return ((layer.weight - wanted).norm() / wanted.norm()).item()


torch.manual_seed(0)
first, second = spectral_norm(nn.Conv2d(3, 8, 3)).eval(), nn.Conv2d(3, 8, 3)
with torch.no_grad():
    wanted, state = first.weight.clone(), copy.deepcopy(first.parametrizations.weight.state_dict())
    parametrize.transfer_parametrizations_and_params(first, second)
    second.eval()
    print(f"the second layer's weight is off by {difference(second, wanted):.0%}, the first one's by {difference(first, wanted):.0%}")
    assert difference(second, wanted) > 0.1 and difference(first, wanted) > 0.1
    second.parametrizations.weight.load_state_dict(state)
    assert difference(second, wanted) < 1e-6
PY
"$folder/venv/bin/python" "$folder/run.py"
