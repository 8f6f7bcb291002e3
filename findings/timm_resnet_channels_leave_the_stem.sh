#!/usr/bin/env bash
# timm 1.0.31: narrowing a ResNet by its setting `channels` leaves a stem of 64 channels, which then costs most.
#
# channels=(8, 16, 32, 64) makes every stage of resnet18 eight times narrower, and stem_width=8, which the class also
# takes, changes nothing unless the stem is a deep one. Seen: the first convolution keeps 64 filters, and at 64 pixels it
# takes over half of the multiply-adds of the narrowed network, so that costs do not fall with the square of the width.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "torch==2.14.1" "torchvision==0.29.1" "timm==1.0.31"
"$work/venv/bin/python" - <<'PYTHON'
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

print("timm", timm.__version__)


def costs(**settings):
    """Filters of the first convolution, its multiply-adds, and those of the network, at 64 pixels."""
    model = timm.create_model("resnet18", num_classes=2, **settings).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, 64, 64))
    by_module = {name: sum(found.values()) // 2 for name, found in counter.get_flop_counts().items()}
    return model.conv1.out_channels, by_module["ResNet.conv1"], by_module["ResNet"]


whole, narrow = costs(), costs(channels=(8, 16, 32, 64))
also = costs(channels=(8, 16, 32, 64), stem_width=8)
for name, (filters, stem, total) in (("as it is", whole), ("channels / 8", narrow), ("and stem_width=8", also)):
    print(f"{name}: {filters} filters in the stem, {stem / 1e6:.1f} of {total / 1e6:.1f} million multiply-adds")
assert narrow[0] == also[0] == 64 and narrow == also, "the behaviour has changed: the stem follows a setting"
assert narrow[1] / narrow[2] > 0.5, "the behaviour has changed: the stem is no longer most of the narrow network"
assert whole[2] / narrow[2] < 20, "the behaviour has changed: the cost falls with the square of the width, by 64"
print("as found: the stem keeps its 64 channels whatever the setting")
PYTHON
