#!/usr/bin/env bash
# timm 1.0.31: calculate_drop_path_rates(rate, depths, stagewise=True) does not do what its docstring says.
#
# The docstring promises "the same rate within each stage" for stagewise=True, and that stagewise "defaults to True" where
# depths is a list. Seen: with stagewise=True the rates rise from block to block across the whole network, and are only
# grouped by stage; with a list of depths and no stagewise, the answer is one flat list. So a network whose authors mean
# stage-wise rates trains with block-wise ones, and a caller who trusts the default indexes a float.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "torch==2.14.1" "torchvision==0.29.1" "timm==1.0.31"
"$work/venv/bin/python" - <<'PYTHON'
import timm
from timm.layers import calculate_drop_path_rates

print("timm", timm.__version__)
text = " ".join(calculate_drop_path_rates.__doc__.split())
assert "with same rate within each stage" in text and "stagewise defaults to True" in text, "the docstring has changed"

stagewise = [[round(rate, 3) for rate in stage] for stage in calculate_drop_path_rates(0.3, [2, 2], stagewise=True)]
default = [round(rate, 3) for rate in calculate_drop_path_rates(0.3, [2, 2])]
print("stagewise=True:", stagewise)
print("a list of depths, stagewise left out:", default)
assert stagewise == [[0.0, 0.1], [0.2, 0.3]], "the behaviour has changed: one rate a stage would be [[0, 0], [.3, .3]]"
assert default == [0.0, 0.1, 0.2, 0.3], "the behaviour has changed: by the docstring it would be a list for each stage"
print("as found: rates differ within a stage, and a list of depths gives a flat list by default")
PYTHON
