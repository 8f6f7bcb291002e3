#!/usr/bin/env bash
# torch 2.14.1 on a CPU with MKL: a Fourier transform of a batch without images raises, where all else gives an empty batch.
#
# A convolution, a matrix product and a layer norm of zero images return zero images, numpy's transform does, and so does
# torch's own on the meta device, on which models are traced. On the CPU torch.fft.rfft2 ends with MKL's "Inconsistent
# configuration parameters", which names neither the batch nor what must hold. A network with a spectral filter so fails
# on the empty remainder of a filtered batch, although its shapes were checked on the meta device.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "torch==2.14.1" numpy
"$work/venv/bin/python" - <<'PYTHON'
import numpy as np
import torch

print("torch", torch.__version__, "with MKL:", torch.backends.mkl.is_available())
none = torch.zeros(0, 3, 8, 8)
assert torch.nn.Conv2d(3, 3, 3, padding=1)(none).shape == none.shape
assert np.fft.rfft2(none.numpy()).shape == (0, 3, 8, 5)
assert torch.fft.rfft2(none.to("meta")).shape == (0, 3, 8, 5)
try:
    torch.fft.rfft2(none)
except RuntimeError as error:
    message = str(error)
    print("torch.fft.rfft2 of no image:", message)
    assert "Inconsistent configuration parameters" in message, "the message has changed"
else:
    raise SystemExit("the behaviour has changed: an empty batch is transformed")
print("as found: no image is an error on the CPU, and an empty result in numpy, on the meta device and in a convolution")
PYTHON
