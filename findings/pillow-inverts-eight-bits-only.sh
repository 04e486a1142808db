#!/usr/bin/env bash
# Of TIFF files whose zero is white Pillow inverts those of 8 bits and not those of 16.
#
# Version    Pillow 12.0.0, tifffile 2025.10.16, Python 3.11.
# Input      the same grey picture as TIFF of 8 and of 16 bits, PhotometricInterpretation 0 (WhiteIsZero), as scanners and
#            microscopes write it.
# Expected   both are read as pictures, or both as they are stored.
# Seen       the one of 8 bits is inverted, so that white is 255; the one of 16 bits is a negative.
# Hurts      whoever reads scans of both depths: half of them are negatives, with all their statistics.
# Instead    invert modes I;16 and I;16B where tag 262 is 0.
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


def read(values):
    file = io.BytesIO()
    tifffile.imwrite(file, values, photometric="miniswhite")
    file.seek(0)
    with Image.open(file) as picture:
        print(picture.mode, "tag 262 is", picture.tag_v2[262], "stored", values[0, 0], "read", np.asarray(picture)[0, 0])
        return np.asarray(picture)


eight = np.full((4, 4), 10, np.uint8)
sixteen = np.full((4, 4), 10 * 257, np.uint16)
assert (read(eight) == 245).all()
assert (read(sixteen) == 10 * 257).all()
PY
"$folder/venv/bin/python" "$folder/run.py"
