"""Tables of results as papers print them, in CSV, LaTeX or Markdown, read as numbers.

A cell may be bold, underlined or coloured, a mean with its spread ("91.2 ± 0.3", "$91.2_{\\pm 0.3}$"), a percentage,
or empty. What stands in parentheses or brackets behind a number (a rank, an interval) is not read.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Literal

Rows = Literal["datasets", "methods"]
Unit = Literal["percent", "share", "plain"]
UNITS: tuple[Unit, ...] = ("percent", "share", "plain")

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
# A number, its spread, and remarks that are not read: signs of footnotes, parentheses, brackets.
CELL = re.compile(
    rf"[*†‡§↑↓~≈\s]*(?P<mean>{NUMBER})\s*(?P<percent>%?)\s*"
    rf"(?:(?:±|\+/-|\+-)\s*(?P<spread>{NUMBER})\s*%?)?\s*"
    r"(?:\([^()]*\)|\[[^\[\]]*\]|[*†‡§¶↑↓%\s]|\^\S*)*"
)
EMPTY = {"", "-", "--", "---", "–", "—", "/", "n/a", "na", "nan", "none", "oom", "x", "✗", "×", "?"}
# Rows and columns that sum up or describe: no data set and no method.
SUMMARY = re.compile(
    r"(?:macro |micro |overall )?(?:avg\.?|average|mean|median|overall|total)"
    r"(?: (?:score|value|result|performance|rank(?:ing)?|dice|dsc|iou|miou|auc|acc(?:uracy)?|f1))?\.?"
    r"|rank(?:ing)?|#.*|.*\bparam(?:eter)?s?\b.*|.*\b[gmt]?(?:flops?|macs?)\b.*"
    r"|.*\b(?:latency|throughput|fps|runtime)\b.*|year|venue|ref(?:erence)?s?\.?|p(?:[- ]values?)?",
    re.IGNORECASE,
)
OF_METHODS = re.compile(
    r"(?:method|model|network|encoder|backbone|architecture|algorithm|classifier|variant)s?\b.*", re.I
)


@dataclass(frozen=True)
class Printed:
    """A printed table as numbers: a value and a spread for each (data set, method) that has one, and what was left out.

    is_percent: whether some cell bore a sign of per cent.
    """

    datasets: tuple[str, ...]
    methods: tuple[str, ...]
    values: dict[tuple[str, str], float]
    spreads: dict[tuple[str, str], float]
    left_out: tuple[str, ...]
    is_percent: bool


def read_printed(path: Path, rows: Rows | None = None) -> Printed:
    """A printed table from a file, whose form is known by its content.

    rows: whether a row is a data set or a method; by default what the first heading says, else data sets. Raises
    ValueError, one line starting with the file, for what is no such table.
    """
    text = path.read_text(encoding="utf-8-sig")
    grid = [[plain(cell) for cell in row] for row in cells_of(text)]
    grid = [row for row in grid if sum(cell != "" for cell in row) > 1]
    if len(grid) < 2 or min(len(row) for row in grid) < 2:
        raise ValueError(f"{path}: must be a table with a heading, a row and two columns at least, got {_size(grid)}")
    heads, body = _heads(path, grid)
    for place, row in enumerate(body, start=1):
        if len(row) != len(heads):
            raise ValueError(
                f"{path}: rows must have {len(heads)} columns as the heading, got {len(row)} in row {place}"
            )
    found = rows or ("methods" if OF_METHODS.fullmatch(heads[0]) else "datasets")
    left_out = []
    columns = _named(path, "column", heads[1:])
    lines = _named(path, "row", [row[0] for row in body])
    values, spreads, is_percent = {}, {}, False
    for line, row in zip(lines, body):
        if SUMMARY.fullmatch(line):
            left_out.append(line)
            continue
        for column, cell in zip(columns, row[1:]):
            if SUMMARY.fullmatch(column):
                continue
            key = (line, column) if found == "datasets" else (column, line)
            if cell.lower() in EMPTY:
                continue
            number = CELL.fullmatch(cell)
            if number is None:
                raise ValueError(
                    f"{path}: a cell must be a number or empty, got {cell!r} in row {line}, column {column}"
                )
            values[key] = float(number["mean"])
            is_percent = is_percent or number["percent"] == "%"
            if number["spread"] is not None:
                spreads[key] = float(number["spread"])
    left_out += [column for column in columns if SUMMARY.fullmatch(column)]
    kept = [line for line in lines if line not in left_out], [column for column in columns if column not in left_out]
    datasets, methods = kept if found == "datasets" else kept[::-1]
    if not values:
        raise ValueError(f"{path}: must hold a number for some data set and method, got none")
    return Printed(tuple(datasets), tuple(methods), values, spreads, tuple(left_out), is_percent)


def as_shares(values: Sequence[float], unit: Unit | None, is_percent: bool, lower_is_better: bool) -> tuple[float, str]:
    """What to multiply printed values by, and in words how they were read. unit: None: by their size.

    Values of at most 1 are shares. Larger ones are percentages where a cell says so, or where all lie in 0 … 100 and
    more is better; else they stand as they are. Raises ValueError where they cannot be of the unit.
    """
    low, high = min(values), max(values)
    if unit is None:
        within = low >= 0 and high <= 100
        unit = "share" if high <= 1 and not is_percent else "plain"
        if unit == "plain" and within and (is_percent or not lower_is_better):
            unit = "percent"
    elif (unit == "share" and high > 1) or (unit == "percent" and not (low >= 0 and high <= 100)):
        raise ValueError(f"values must be of the unit {unit}, got {low:g} to {high:g}")
    if unit == "percent":
        return 0.01, "Values were printed in per cent and are shown as shares."
    return 1.0, "Values are shares, as printed." if unit == "share" else "Values are shown as printed."


def cells_of(text: str) -> list[list[str]]:
    """The cells of a table's text, row by row: LaTeX, Markdown, or CSV with commas, semicolons or tabs."""
    if re.search(r"\\\\|\\begin\{tabular", text):
        return _latex(text)
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if sum(line.lstrip().startswith("|") for line in lines) > 1:
        rows = [re.split(r"(?<!\\)\|", line.strip().strip("|")) for line in lines if "|" in line]
        return [row for row in rows if not all(re.fullmatch(r"\s*:?-+:?\s*", cell) for cell in row)]
    if not lines:
        return []
    delimiter = max(",;\t", key=lines[0].count)
    rows = list(csv.reader(lines, delimiter=delimiter))
    if delimiter == ",":
        return rows
    # Where commas separate nothing, they may be decimal points.
    return [[re.sub(r"(?<=\d),(?=\d)", ".", cell) for cell in row] for row in rows]


def plain(cell: str) -> str:
    """A cell without the marks of LaTeX, Markdown and HTML: bold, colours, footnotes, mathematics."""
    cell = re.sub(r"\\pm|&plusmn;|\\textpm", "±", cell)
    cell = re.sub(r"(?:\\[,;:! ]|~|&nbsp;|\u00a0|\u202f|\u2009)", " ", cell)
    cell = re.sub(r"\\([%_&#$|])", r"\1", cell).replace("−", "-").replace(r"\times", "×")
    cell = re.sub(r"<sup>.*?</sup>", "", cell)
    cell = re.sub(r"<[^<>]*>", " ", cell)
    cell = re.sub(r"\\(?:cite\w*|footnote\w*|tnote|ref|label|cellcolor|rowcolor)(?:\[[^\]]*\])?\{[^{}]*\}", "", cell)
    cell = re.sub(r"\\(?:text|color)color(?:\[[^\]]*\])?\{[^{}]*\}", "", cell)
    # Superscripts mark footnotes; a subscript is what stands beside a number.
    cell = re.sub(r"\^(?:\{[^{}]*\}|\\\w+|[*†‡])", "", cell)
    before = None
    while before != cell:
        before = cell
        cell = re.sub(r"\\[a-zA-Z]+\*?(?:\[[^\]]*\])?\{([^{}]*)\}", r"\1", cell)
        cell = re.sub(r"_\{\s*(±[^{}]*)\}", r" \1", cell)
        cell = re.sub(r"(?<=[\d}])_\{([^{}]*)\}", r" (\1)", cell)
        cell = re.sub(r"(?<!\w)\{([^{}]*)\}", r"\1", cell)
    cell = re.sub(r"\\[a-zA-Z]+\s*", " ", cell)
    cell = re.sub(r"(\*\*|__|`)(.*?)\1", r"\2", cell)
    cell = re.sub(r"(?<![\w*])([*_])(?=\S)(.+?)(?<=\S)\1(?![\w*])", r"\2", cell)
    # Markdown's own escapes come last: what they protect is no mark.
    cell = re.sub(r"\\([\\`*\[\]<>])", r"\1", cell)
    return " ".join(re.sub(r"[${}]", "", cell).split())


def _latex(text: str) -> list[list[str]]:
    text = re.sub(r"(?<!\\)%.*", "", text)
    tabular = re.search(r"\\begin\{(tabular[*xy]?|longtable)\}(.*?)\\end\{\1\}", text, re.DOTALL)
    if tabular is not None:
        # The columns' form, with one level of braces inside, and for some a width before it.
        text = re.sub(r"^\s*(?:\[[^\]]*\])?(?:\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\}){1,2}", "", tabular[2], count=1)
    text = re.sub(r"\\(?:top|mid|bottom|h)(?:rule|line)(?:\[[^\]]*\])?", "", text)
    text = re.sub(r"\\(?:cmidrule|cline)(?:\([^)]*\))?(?:\[[^\]]*\])?\{[^{}]*\}", "", text)
    text = re.sub(r"\\(?:addlinespace|specialrule|rowcolor|noalign)(?:\[[^\]]*\])?(?:\{[^{}]*\})*", "", text)
    text = re.sub(r"\\multirow(?:\[[^\]]*\])?\{[^{}]*\}(?:\[[^\]]*\])?\{[^{}]*\}", "", text)
    rows = []
    for line in re.split(r"\\\\\s*(?:\[[^\]]*\])?|\\tabularnewline", text):
        cells: list[str] = []
        for cell in re.split(r"(?<!\\)&", line):
            spanned = re.match(r"\s*\\multicolumn\{(\d+)\}\{(?:[^{}]|\{[^{}]*\})*\}", cell)
            cells.append(cell[spanned.end() :] if spanned else cell)
            # A heading over several columns belongs to each of them; in a row of numbers there is none.
            cells += [cells[-1]] * (int(spanned[1]) - 1 if spanned else 0)
        rows.append(cells)
    return [row for row in rows if len({cell.strip() for cell in row}) > 1]


def _heads(path: Path, grid: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """The headings, those of two rows joined, and the rows below them."""
    count = next((place for place, row in enumerate(grid) if any(_is_number(cell) for cell in row[1:])), len(grid))
    if count == 0 or count == len(grid):
        raise ValueError(f"{path}: must have headings above rows of numbers, got {count} rows without a number")
    columns = zip_longest(*grid[:count], fillvalue="")
    heads = [" ".join(dict.fromkeys(cell for cell in column if cell)) for column in columns]
    return heads, grid[count:]


def _is_number(cell: str) -> bool:
    return CELL.fullmatch(cell) is not None


def _named(path: Path, what: str, names: Sequence[str]) -> list[str]:
    """Names that differ from each other. Raises ValueError for two alike, and for none."""
    for name in names:
        if names.count(name) > 1 or not name:
            came = f"{name!r} {names.count(name)} times" if name else "one without a name"
            raise ValueError(f"{path}: every {what} must have a name of its own, got {came}")
    return list(names)


def _size(grid: Sequence[Sequence[str]]) -> str:
    return f"{len(grid)} rows of {max((len(row) for row in grid), default=0)} columns"
