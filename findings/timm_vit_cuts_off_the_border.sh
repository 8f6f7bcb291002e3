#!/usr/bin/env bash
# timm 1.0.31: a ViT for images whose side is no multiple of its patch never sees their right and lower border, silently.
#
# create_model("vit_tiny_patch16_224", img_size=28) builds and runs, at the 28 pixels of MedMNIST, on a single patch: the
# grid is 28 // 16 = 1, and the strided convolution drops what is left over. Seen: 16 of 28 rows and columns have any
# influence on the output (a third of the pixels), 96 of 100 at 100 pixels, 28 of 30 with a Swin's patches of 4. With
# dynamic_img_size=True the same image is refused, with dynamic_img_pad=True it is padded; the default does neither.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "torch==2.14.1" "torchvision==0.29.1" "timm==1.0.31"
"$work/venv/bin/python" - <<'PYTHON'
import timm
import torch

print("timm", timm.__version__)


def seen(name, size, **settings):
    """How many rows of an image have a gradient."""
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=2, img_size=size, **settings).eval()
    image = torch.randn(1, 3, size, size, requires_grad=True)
    model(image)[0, 0].backward()
    return int((image.grad.abs().sum((0, 1, 3)) > 0).sum())


for name, size, rows in (
    ("vit_tiny_patch16_224", 28, 16),
    ("vit_tiny_patch16_224", 100, 96),
    ("swin_tiny_patch4_window7_224", 30, 28),
):
    found = seen(name, size)
    print(f"{name} at {size} pixels: {found} of {size} rows influence the output")
    assert found == rows, f"the behaviour has changed: it was {rows} rows"
try:
    seen("vit_tiny_patch16_224", 28, dynamic_img_size=True)
except AssertionError as error:
    print("dynamic_img_size=True refuses it:", error)
else:
    raise SystemExit("the behaviour has changed: dynamic_img_size=True accepts 28 pixels")
found = seen("vit_tiny_patch16_224", 28, dynamic_img_size=True, dynamic_img_pad=True)
print(f"dynamic_img_pad=True: {found} of 28 rows influence the output")
assert found == 28, "the behaviour has changed with dynamic_img_pad=True"
print("as found: the border is cut off without a word unless one of the dynamic settings is given")
PYTHON
