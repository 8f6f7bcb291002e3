"""Where records lie: in a ledger, in the store around it, or among the artifacts that MLflow keeps of a study.

A ledger is a folder with `records.jsonl`. Artifacts are folders, at any depth, with a `record.json` and that cell's
`<cell_id>.npz` beside it: what tracking logs for each cell, as MLflow stores it or `mlflow artifacts download` leaves
it.
"""

from functools import lru_cache
from pathlib import Path

RECORDS = "records.jsonl"
ARTIFACT = "record.json"


def ledger_folder(folder: Path | str) -> Path:
    """The folder that holds records.jsonl: the one given, or its `ledger`. Raises ValueError when neither does."""
    found = _ledger(Path(folder))
    if found is None:
        raise ValueError(
            f"{folder}: must be a ledger (a folder with {RECORDS}) or a store that holds one, got {_came(Path(folder))}"
        )
    return found


def records_folder(folder: Path | str) -> tuple[Path, list[Path]]:
    """The ledger's folder and no paths, or the given folder and the record.json of every cell's artifacts below it.

    Raises ValueError, one line, for a folder that holds neither.
    """
    folder = Path(folder)
    ledger = _ledger(folder)
    if ledger is not None:
        return ledger, []
    artifacts = sorted(folder.rglob(ARTIFACT)) if folder.is_dir() else []
    if not artifacts:
        raise ValueError(
            f"{folder}: must be a ledger (a folder with {RECORDS}), a store that holds one, or artifacts of one "
            f"({ARTIFACT} of every cell), got {_came(folder)}"
        )
    return folder, artifacts


def predictions_path(folder: Path | str, cell_id: str) -> Path:
    """The path where the predictions of a cell lie or would lie. Raises ValueError as `records_folder` does."""
    folder = Path(folder)
    ledger = _ledger(folder)
    if ledger is not None:
        return ledger / "probabilities" / f"{cell_id}.npz"
    records_folder(folder)
    name = f"{cell_id}.npz"
    found = _npz_files(folder).get(name)
    if found is None:
        # Artifacts that came after the folder was read.
        _npz_files.cache_clear()
        found = _npz_files(folder).get(name, folder / name)
    return found


@lru_cache(maxsize=8)
def _npz_files(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in sorted(folder.rglob("*.npz"))}


def _ledger(folder: Path) -> Path | None:
    return next((place for place in (folder, folder / "ledger") if (place / RECORDS).is_file()), None)


def _came(folder: Path) -> str:
    return "a folder without one" if folder.is_dir() else "a file" if folder.exists() else "nothing there"
