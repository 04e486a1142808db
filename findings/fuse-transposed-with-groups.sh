#!/usr/bin/env bash
# torch cannot fuse batch normalisation into a transposed convolution that has groups.
#
# Version    torch 2.13.0, CPU, Python 3.11.
# Input      nn.ConvTranspose2d(4, 6, 3, groups=2) and nn.BatchNorm2d(6), both in evaluation, given to
#            torch.nn.utils.fusion.fuse_conv_bn_eval(..., transpose=True).
# Expected   one layer with the outputs of the two, as without groups.
# Seen       RuntimeError: sizes 3 and 6 do not match. The weight has shape (in, out / groups, ...), and the factors of
#            all outputs are laid along its second side. Depthwise ones (groups = in = out) give no error but a weight
#            of shape (out, out, ...), which the convolution refuses later.
# Hurts      whoever fuses decoders for inference.
# Instead    write the kernel as that of the ordinary convolution, fuse, and write it back.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'torch==2.13.0' numpy
cat > "$folder/run.py" <<'PY'
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval


def pair(inputs, outputs, groups):
    return nn.ConvTranspose2d(inputs, outputs, 3, groups=groups).eval(), nn.BatchNorm2d(outputs).eval()


x = torch.randn(2, 4, 5, 5)
layer, norm = pair(4, 6, 1)
assert torch.allclose(fuse_conv_bn_eval(layer, norm, transpose=True)(x), norm(layer(x)), atol=1e-5)
layer, norm = pair(4, 6, 2)
try:
    fuse_conv_bn_eval(layer, norm, transpose=True)
    raise SystemExit("fused: torch has changed")
except RuntimeError as error:
    print("groups=2:", error)
layer, norm = pair(4, 4, 4)
fused = fuse_conv_bn_eval(layer, norm, transpose=True)
print("groups=4: weight", tuple(layer.weight.shape), "became", tuple(fused.weight.shape))
assert fused.weight.shape == (4, 4, 3, 3)
PY
"$folder/venv/bin/python" "$folder/run.py"
