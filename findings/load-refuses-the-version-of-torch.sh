#!/usr/bin/env bash
# torch.load with its own default refuses a state that holds torch.__version__.
#
# Version    torch 2.13.0, CPU, Python 3.11.
# Input      torch.save({"torch": torch.__version__}, file), as programs note what wrote a checkpoint.
# Expected   torch.load(file) gives the text back: its default, weights_only=True, allows texts.
# Seen       an UnpicklingError: torch.__version__ looks like a text and is a class of its own, TorchVersion, which the
#            default does not allow.
# Hurts      whoever stores the version beside the weights: the checkpoint is written, and refused when it is needed.
# Instead    store str(torch.__version__).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'torch==2.13.0' numpy
cat > "$folder/run.py" <<'PY'
import io
import pickle

import torch


def loads(value):
    file = io.BytesIO()
    torch.save({"torch": value}, file)
    file.seek(0)
    try:
        return torch.load(file)["torch"] == value
    except pickle.UnpicklingError as error:
        print(str(error).split("WeightsUnpickler error: ")[-1].splitlines()[0])
        return False


print(type(torch.__version__), "is a text:", isinstance(torch.__version__, str))
assert not loads(torch.__version__)
assert loads(str(torch.__version__))
PY
"$folder/venv/bin/python" "$folder/run.py"
