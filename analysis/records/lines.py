"""The lines of a ledger: which text is a record, and which of a cell's records counts.

Defined only here, both for readers of a ledger and for the driver that appends to it.
"""

import json
from pathlib import Path
from typing import NamedTuple, TypeVar

from analysis.records.schema import STATUSES, Record, shortened, validate_record

Place = TypeVar("Place")


class Reading(NamedTuple):
    """What was read from a ledger: the record that counts for each cell, and how many torn lines were left out (≤ 1).

    The records are in the order in which their cells first appeared, and every one of them obeys the schema.
    """

    records: list[Record]
    torn: int


def parsed(text: bytes) -> Record | None:
    """The record in a text; None where it is not a JSON object with a cell's id and a known status."""
    try:
        record = json.loads(text)
    except ValueError:
        return None
    if not isinstance(record, dict) or not isinstance(record.get("cell_id"), str):
        return None
    return record if record.get("status") in STATUSES else None


def take(latest: dict[str, tuple[Place, Record]], place: Place, record: Record) -> None:
    """Puts a record, with its place, where it counts: among `latest`, by its cell_id.

    The last record of a cell counts, except that a finished cell is never replaced by a later failure (of a second
    driver). The order is that of first appearance: replacing a value keeps the key's place.
    """
    earlier = latest.get(record["cell_id"])
    if earlier is None or earlier[1]["status"] != "done" or record["status"] == "done":
        latest[record["cell_id"]] = (place, record)


def validate_at(place: str, record: Record) -> None:
    """Raises ValueError, one line starting with the place, where a record departs from the schema."""
    try:
        validate_record(record)
    except ValueError as problem:
        raise ValueError(f"{place}: {problem}") from None


class Lines:
    """The records of a ledger's file as it grows: each line is parsed once, when it is first seen.

    `torn` is the number of a last line that a kill left half-written, as of the last look; None where there is none.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.torn: int | None = None
        self._latest: dict[str, tuple[int, Record]] = {}
        # Bytes and lines read so far, always up to the end of a whole line: the next look reads only what is new.
        self._offset = 0
        self._number = 0
        self._validated = 0

    def latest(self) -> dict[str, tuple[int, Record]]:
        """The record that counts for each cell, with the number of its line; none where there is no file.

        Raises ValueError naming file and line when a line other than a torn last one is not a record.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return dict(self._latest)
        *lines, tail = text.split(b"\n")
        for number, line in enumerate(lines, start=self._number + 1):
            record = parsed(line)
            if record is None:
                came = shortened(line.decode(errors="replace"))
                raise ValueError(f"{self.path}: line {number} must be a record, got {came}")
            take(self._latest, number, record)
        self._offset += len(text) - len(tail)
        self._number += len(lines)
        latest = dict(self._latest)
        # A record without its newline counts, and is read again: whoever appends next ends the line.
        record = parsed(tail) if tail else None
        if record is not None:
            take(latest, self._number + 1, record)
        self.torn = self._number + 1 if tail and record is None else None
        return latest

    def reading(self) -> Reading:
        """The records that count, checked against the schema. Raises ValueError naming file and line."""
        latest = self.latest()
        for number, record in latest.values():
            if number > self._validated:
                validate_at(f"{self.path}: line {number}", record)
        self._validated = self._number
        return Reading([record for _, record in latest.values()], int(self.torn is not None))
