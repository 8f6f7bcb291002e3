"""Prints README's table of axes: python -m medmamba_variants.axis_table."""

from __future__ import annotations

from medmamba_variants.config import VariantConfig
from medmamba_variants.design.axes import AXES, SUGAR
from medmamba_variants.design.kinds import short
from medmamba_variants.streams import end_with_reader


def axis_table() -> str:
    """The axes as a Markdown table: name, values with the default first, meaning, source."""
    defaults = VariantConfig().to_dict()
    lines = ["| axis | default | values | meaning | no effect where | source |", "|---|---|---|---|---|---|"]
    for axis in (*AXES.values(), *SUGAR.values()):
        default = short(defaults[axis.name]) if axis.name in defaults else "writes branches"
        needs = "; ".join(axis.no_effect)
        lines.append(f"| `{axis.name}` | {default} | {axis.kind.words()} | {axis.meaning} | {needs} | {axis.source} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    end_with_reader()
    print(axis_table(), end="")
