"""A table as a value, and as CSV, Markdown and LaTeX (booktabs)."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

LATEX_ESCAPES = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "−": r"$-$",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "α": r"$\alpha$",
    "→": r"$\to$",
    "▲": r"$\uparrow$",
    "▼": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "–": "--",
    "…": r"\dots{}",
    "≠": r"$\ne$",
    "\u202f": r"\,",
    "\u00a0": "~",
}


class Strong(str):
    """The text of a cell that stands out, because a verdict says so and for no other reason."""


@dataclass(frozen=True)
class Table:
    """A table as a reader sees it (headers and rows of text) and at full precision (data, for CSV).

    caption says what the numbers are, what an interval is and its n. left: columns that hold words, flush left; the
    others are numbers. The first column names the row.
    """

    name: str
    title: str
    caption: str
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    data: pd.DataFrame
    left: frozenset[int] = field(default=frozenset({0}))


def to_csv(table: Table) -> str:
    """The data at full precision, one header line, empty where there is no value."""
    return table.data.to_csv(index=False, lineterminator="\n")


def to_markdown(table: Table) -> str:
    """A GitHub table with its title and caption."""
    head = "| " + " | ".join(_markdown(h) for h in table.headers) + " |"
    rule = "|" + "|".join(" --- " if i in table.left else " ---: " for i in range(len(table.headers))) + "|"
    rows = [
        "| " + " | ".join(f"**{_markdown(c)}**" if isinstance(c, Strong) else _markdown(c) for c in row) + " |"
        for row in table.rows
    ]
    return "\n".join([f"### {_markdown(table.title)}", "", _markdown(table.caption), "", head, rule, *rows]) + "\n"


def to_latex(table: Table) -> str:
    """A table environment for the booktabs package, caption and label included."""
    align = "".join("l" if i in table.left else "r" for i in range(len(table.headers)))
    rows = [
        " & ".join(rf"\textbf{{{latex(c)}}}" if isinstance(c, Strong) else latex(c) for c in row) + r" \\"
        for row in table.rows
    ]
    # LaTeX would take a leading bracket or star for an option of the line end above.
    rows = [f"{{}}{row}" if row.startswith(("[", "*")) else row for row in rows]
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex(table.title)}. {latex(table.caption)}}}",
            rf"\label{{tab:{re.sub(r'[^a-z0-9-]+', '-', table.name.lower())}}}",
            rf"\begin{{tabular}}{{@{{}}{align}@{{}}}}",
            r"\toprule",
            " & ".join(latex(h) for h in table.headers) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def latex(text: str) -> str:
    """Text that LaTeX prints as it stands."""
    return "".join(LATEX_ESCAPES.get(character, character) for character in " ".join(text.split()))


def _markdown(text: str) -> str:
    text = re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(text.split()))
    return text or " "
