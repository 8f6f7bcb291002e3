"""A study as its store shows it from outside: the board of its cells, whether a launch runs, and the time to go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

from analysis.hashes import ID_LENGTH
from analysis.json_file import read_object
from analysis.records.manifests import parsed_manifests
from analysis.records.schema import Record
from analysis.words import counted
from study.store.ledger import Ledger
from study.telling.board import Board
from study.telling.heat import heat_lines, heat_table
from study.telling.progress import best_text, failures_text, say
from study.telling.terminal import about

# Records, the latest to end, by which the cells at a time are counted.
LATEST = 50


@dataclass(frozen=True)
class Seen:
    """What a store shows of a study: its board, counts of its cells, and what the latest ones took.

    total: cells to have in the end, trials of a tuning included; None where it is not known. trials: how many of those
    have ended. at_a_time: cells that ran beside each other lately, on average.
    """

    name: str
    question: str
    board: Board
    total: int | None
    done: int
    trials: int
    at_a_time: float
    running: bool


def see(study: str, store: Path) -> Seen:
    """A study as its store shows it. Raises ValueError, one line, for a study that the store does not hold."""
    ledger = Ledger(store / "ledger")
    study_hash, manifest = _manifest(study, ledger)
    tuning = manifest.get("tuning")
    tuning_seeds = set((tuning or {}).get("seeds", ()))
    variants: Mapping[str, str] = manifest["variants"]
    is_grid = manifest["strategy"]["name"] == "grid"
    seeds, datasets = manifest["seeds"], manifest["datasets"]
    board = Board(variants.values(), datasets, len(seeds) if is_grid else None, manifest.get("source_keys"))
    known = set(manifest.get("cell_ids") or ())
    found = [r for r in ledger.records().values() if r["cell_id"] in known or r.get("study_hash") == study_hash]
    names: dict[str, str] = dict(variants)
    trials = 0
    for record in found:
        # A tuning's seeds are none of the study's.
        if record["seed"] in tuning_seeds:
            trials += 1
            continue
        variant_id = record["variant_id"]
        if variant_id not in names:
            names[variant_id] = record.get("variant_label") or variant_id
        board.add(names[variant_id], record)
    each = len(seeds) + len(tuning_seeds) * _recipes(tuning)
    count = len(variants) if is_grid else manifest["strategy"].get("trials")
    return Seen(
        name=manifest["name"],
        question=manifest["question"],
        board=board,
        total=None if count is None else count * each * len(datasets),
        done=sum(record["status"] == "done" for record in found),
        trials=trials,
        at_a_time=_at_a_time(found),
        running=_is_running(ledger.folder, study_hash, manifest["name"]),
    )


def lines(seen: Seen) -> list[str]:
    """How far a study is, as lines of plain text without its heat map."""
    total = "?" if seen.total is None else seen.total
    counts = [f"{seen.done} of {total} cells done"]
    if seen.trials:
        counts.append(f"{counted(seen.trials, 'trial')} of the tuning among those that ended")
    stopped = seen.board.count("stopped")
    counts += [f"{stopped} stopped"] if stopped else []
    counts.append("a launch is running" if seen.running else "no launch is running")
    found = [f"{seen.name}: {seen.question}", ", ".join(counts)]
    left = None if seen.total is None else max(0, seen.total - seen.done)
    if left:
        seconds = _seconds_left(seen.board, left)
        if seconds is not None:
            beside = max(1.0, seen.at_a_time)
            at_a_time = f"{beside:.1f} cells at a time as of late" if beside >= 1.05 else "one cell at a time"
            found.append(f"to go: {counted(left, 'cell')}, about {about(seconds / beside)} with {at_a_time}")
    best = best_text(seen.board)
    found += [f"best so far: {best}"] if best else []
    failed = failures_text(seen.board)
    return [*found, f"failed: {failed}"] if failed else found


def show(study: str, store: Path, stream: TextIO) -> None:
    """Writes how far a study is: with a shaded heat map on a terminal, as plain text elsewhere."""
    seen = see(study, store)
    say("\n".join([*lines(seen), ""]), stream)
    if not stream.isatty():
        say("\n".join(heat_lines(seen.board)), stream)
        return
    from rich.console import Console

    table = heat_table(seen.board)
    if table is not None:
        Console(file=stream).print(table)


def _manifest(study: str, ledger: Ledger) -> tuple[str, dict[str, Any]]:
    """A study's hash and manifest, by file, name or hash; of several studies of one name the latest to be launched."""
    wanted = study
    path = Path(study)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        from study.file.reading import load_study

        read = load_study(path)
        wanted = read.study_hash if (ledger.studies_folder / f"{read.study_hash}.json").is_file() else read.name
    file = ledger.studies_folder / f"{wanted}.json"
    if file.is_file():
        return wanted, read_object(file, "a study's manifest")
    found = parsed_manifests(ledger.folder)
    named = [key for key, manifest in found.items() if manifest.get("name") == wanted]
    if not named:
        known = ", ".join(sorted({str(manifest.get("name")) for manifest in found.values()})) or "no study"
        raise ValueError(
            f"{ledger.folder}: STUDY must have been launched into this store, got {study} (it holds: {known})"
        )
    latest = max(named, key=lambda key: (ledger.studies_folder / f"{key}.json").stat().st_mtime)
    return latest, found[latest]


def _recipes(tuning: Mapping[str, Any] | None) -> int:
    """The number of recipes that a tuning tries: every combination of its axes."""
    count = 1 if tuning else 0
    for values in (tuning or {}).get("axes", {}).values():
        count *= len(values)
    return count


def _seconds_left(board: Board, left: int) -> float | None:
    """Seconds of computing for the cells to come; those that the board does not know take what all others took."""
    places = board.missing()[:left]
    known, other = board.seconds_left(places), board.seconds_left([("", "")])
    return None if known is None or other is None else known + (left - len(places)) * other


def _at_a_time(records: Sequence[Record]) -> float:
    """How many cells ran beside each other, over the latest to end: their seconds to the time in which they ran."""
    ended = [r for r in records if r.get("started") and r.get("finished") and r.get("seconds")]
    latest = sorted(ended, key=lambda record: record["finished"])[-LATEST:]
    if not latest:
        return 0.0
    begun = min(datetime.fromisoformat(record["started"]) for record in latest)
    span = (datetime.fromisoformat(latest[-1]["finished"]) - begun).total_seconds()
    return sum(record["seconds"] for record in latest) / max(1.0, span)


def _is_running(folder: Path, study_hash: str, name: str) -> bool:
    """Whether a process holds a lock of the study, which ends with it."""
    from filelock import Timeout

    from study.store.lock import file_lock

    locks = [*folder.glob(f".{study_hash}*.lock"), *folder.glob(f".{name}-{'[0-9a-f]' * ID_LENGTH}.lock")]
    for path in locks:
        try:
            with file_lock(path).acquire(blocking=False):
                continue
        except Timeout:
            return True
        except OSError:
            continue
    return False
