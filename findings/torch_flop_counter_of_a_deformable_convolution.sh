#!/usr/bin/env bash
# torch 2.14.1's FlopCounterMode counts a deformable convolution of torchvision 0.29.1, and Fourier filters, as nothing.
#
# An operation without a formula adds zero, and no warning says so. A network whose 3×3 convolutions are replaced by
# deformable ones, or by global filters in frequency space (GFNet), so seems to cost less than before, although it does
# strictly more: tables of accuracy against FLOPs that are made in this way favour just the unusual operators.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "torch==2.14.1" "torchvision==0.29.1" numpy
"$work/venv/bin/python" -W error - <<'PYTHON'
import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

print("torch", torch.__version__, "torchvision", torchvision.__version__)


def flops(function, *tensors):
    with FlopCounterMode(display=False) as counter:
        function(*tensors)
    return counter.get_total_flops()


images, weight = torch.randn(1, 8, 16, 16), torch.randn(8, 8, 3, 3)
offsets = torch.zeros(1, 18, 16, 16)
plain = flops(torch.nn.functional.conv2d, images, weight, None, 1, 1)
deformable = flops(lambda x, o, w: torchvision.ops.deform_conv2d(x, o, w, padding=1), images, offsets, weight)
fourier = flops(lambda x: torch.fft.irfft2(torch.fft.rfft2(x) * 2), images)
same = torch.allclose(
    torchvision.ops.deform_conv2d(images, offsets, weight, padding=1),
    torch.nn.functional.conv2d(images, weight, padding=1),
    atol=1e-4,
)
print(f"3×3 convolution: {plain} flops; the same by a deformable one: {deformable}; a Fourier filter: {fourier}")
assert same, "the two convolutions must give one result"
assert plain == 2 * 9 * 8 * 8 * 16 * 16, "the convolution's count has changed"
assert deformable == 0 and fourier == 0, "the behaviour has changed: they are counted"
print("as found: a deformable convolution and a Fourier filter count as zero, without a warning")
PYTHON
