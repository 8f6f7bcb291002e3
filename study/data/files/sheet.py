"""Tables in text files, as spreadsheet programs and scripts of all systems write them."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from study.data.names import normal

SEPARATORS = (",", ";", "\t")


@dataclass(frozen=True)
class Sheet:
    """The rows of a table below its head; every value is text without blanks around it, in composed Unicode."""

    path: Path
    columns: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]

    def need(self, columns: Sequence[str]) -> None:
        """Raises ValueError where one of these columns is absent."""
        if not set(columns) <= set(self.columns):
            names = " and ".join([", ".join(columns[:-1]), columns[-1]] if len(columns) > 1 else columns)
            word = "column" if len(columns) == 1 else "columns"
            raise ValueError(f"{self.path}: must have the {word} {names}, got {', '.join(self.columns) or 'none'}")


def read_sheet(path: Path) -> Sheet:
    """The table in a file, in UTF-8 or (by its first bytes) UTF-16, its values parted by comma, semicolon or tab.

    Raises ValueError for what is no such text, and for a column named twice.
    """
    try:
        start = path.read_bytes()[:2]
        # Spreadsheet programs begin their files with a byte-order mark.
        encoding = "utf-16" if start in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        with path.open(newline="", encoding=encoding) as file:
            head = file.readline()
            separator = max(SEPARATORS, key=head.count)
            file.seek(0)
            lines = list(csv.reader(file, delimiter=separator))
    except (UnicodeError, csv.Error) as error:
        raise ValueError(f"{path}: must be a table of text in UTF-8, got {error}") from None
    columns = tuple(normal(name.strip()) for name in lines[0]) if lines else ()
    for name in columns:
        if name and columns.count(name) > 1:
            raise ValueError(f"{path}: must name each column once, got {name} twice")
    # A row that ends early has empty values, what stands beyond the last column has no name.
    filled = ([*line, *[""] * (len(columns) - len(line))] for line in lines[1:] if any(line))
    rows = tuple({name: normal(value.strip()) for name, value in zip(columns, line)} for line in filled)
    return Sheet(path, columns, rows)


def as_path(text: str) -> str:
    """The path in a table's cell with slashes alone: backslashes are Windows' way to write them."""
    return text.replace("\\", "/").removeprefix("./")
