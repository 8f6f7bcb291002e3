#!/usr/bin/env bash
# Pillow 13.0.0: an uncompressed TIFF that is stored turned (orientation 5 to 8) is garbled when opened by its name.
#
# Opened by name, the file is mapped into memory with the sides of the upright picture, so that rows begin at wrong
# places, and is then turned once more: wrong pixels, wrong sides, no error. From a file object, where nothing is mapped,
# it is read right. A reader of other people's images must open files itself.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "pillow==13.0.0" numpy
"$work/venv/bin/python" - "$work/turned.tif" <<'PYTHON'
import sys

import numpy as np
import PIL
from PIL import Image

path = sys.argv[1]
stored, tags = np.arange(54, dtype=np.uint8).reshape(9, 6), Image.Exif()
tags[0x0112] = 6
Image.fromarray(stored).save(path, exif=tags)
upright = np.rot90(stored, -1)
with open(path, "rb") as file:
    assert np.array_equal(np.asarray(Image.open(file)), upright), "from a file object it was right"
by_name = np.asarray(Image.open(path))
print("Pillow", PIL.__version__, "by name:", by_name.shape, "upright:", upright.shape)
if np.array_equal(by_name, upright):
    raise SystemExit("the behaviour has changed: the file is read right by its name")
print("as found: right from a file object, garbled by its name")
PYTHON
