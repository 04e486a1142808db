#!/usr/bin/env bash
# Pillow reads a TIFF of signed bytes as one of unsigned bytes.
#
# Version    Pillow 12.0.0, tifffile 2025.10.16, Python 3.11.
# Input      a grey TIFF of int8 (SampleFormat 2), as difference pictures and instruments write it.
# Expected   negative numbers, or an error, as for signed pixels of 16 bits (which are read with their sign).
# Seen       mode L: -1 is read as 255, the darkest values as the brightest.
# Hurts      whoever takes mode L for granted: small differences around zero become the largest contrast there is.
# Instead    refuse a TIFF whose tag 339 is not 1, or read it with tifffile.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check 'pillow==12.0.0' 'tifffile==2025.10.16' numpy
cat > "$folder/run.py" <<'PY'
import io

import numpy as np
import tifffile
from PIL import Image


def read(dtype):
    file = io.BytesIO()
    tifffile.imwrite(file, np.full((4, 4), -1, dtype))
    file.seek(0)
    with Image.open(file) as picture:
        print(dtype.__name__, "tag 339 is", picture.tag_v2[339], "mode", picture.mode, "read", np.asarray(picture)[0, 0])
        return int(np.asarray(picture)[0, 0])


assert read(np.int8) == 255
assert read(np.int16) == -1
PY
"$folder/venv/bin/python" "$folder/run.py"
