"""An audit as lines of a terminal: what the set holds, then what was found, faults marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analysis import audits
from analysis.audits import remarks
from analysis.words import counted
from study.data.protocol import SPLITS
from study.telling.terminal import columns


def shared_lines(shared: Sequence[Mapping[str, Any]], sources: Mapping[str, str]) -> list[str]:
    """A line on each two sets that show the same pictures; `!` marks those that no source joins. sources: by name."""
    said = [(pair, audits.shared(pair, sources)) for pair in shared]
    return [f"{'!' if remark.fault else ' '} {' and '.join(pair['sets'])}: {remark.text}" for pair, remark in said]


def lines(found: Mapping[str, Any]) -> list[str]:
    """The lines on one data set: size, images of each class and split, and every remark; `!` marks a fault."""
    height, width = found["image_size"]
    total, groups = sum(found["n"].values()), found["groups"]["counts"]
    head = (
        f"{found['name']}: {counted(total, 'image')} of {height}×{width}, {counted(found['channels'], 'channel')}; "
        f"{found['modality']}; fingerprint {found['fingerprint']}"
    )
    rows = [[name, *(f"{found['class_counts'][split][name]:,}" for split in SPLITS)] for name in found["classes"]]
    rows.append(["images", *(f"{found['n'][split]:,}" for split in SPLITS)])
    if groups:
        rows.append(["groups", *(f"{groups[split]:,}" for split in SPLITS)])
    said = remarks(found)
    lines = [head, *(f"  {line}" for line in columns(("class", *SPLITS), rows, right=(1, 2, 3)))]
    if not any(remark.fault for remark in said):
        lines.append("  nothing stands in two splits, and no picture bears two labels")
    return [*lines, *(f"{'!' if remark.fault else ' '} {remark.text}" for remark in said)]
