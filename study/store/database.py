"""MLflow database of a store: its place, one maker at a time, and paths of artifacts after the store has moved."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from study.store.lock import file_lock

DATABASE = "mlflow.db"
ARTIFACTS = "artifacts"
PREFIX = "sqlite:///"


def default_uri(store: Path) -> str:
    """The URI of a store's MLflow database."""
    return f"{PREFIX}{store.absolute() / DATABASE}"


def absolute_uri(uri: str) -> str:
    """A URI in which the relative path of an SQLite database is made absolute; other URIs stay as they are."""
    path = uri.removeprefix(PREFIX)
    if not uri.startswith(PREFIX) or path.startswith("/") or path == ":memory:":
        return uri
    return PREFIX + str(Path(path).absolute())


def artifacts_uri(store: Path) -> str:
    """The URI of a store's artifacts for MLflow."""
    return (store.absolute() / ARTIFACTS).as_uri()


@contextmanager
def alone(uri: str) -> Iterator[Path | None]:
    """Context that keeps other drivers out while an SQLite database is made; yields its path.

    Its migrations cannot run twice at a time.
    """
    if not uri.startswith(PREFIX) or ":memory:" in uri or "?" in uri:
        yield None
        return
    database = Path(uri.removeprefix(PREFIX))
    database.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(database.with_name(f".{database.name}.lock")):
        yield database


def follow_store(store: Path) -> None:
    """Points a store's database to where its artifacts now lie.

    MLflow keeps absolute paths: in a moved or copied store it would find no file, and write to the old place.
    """
    here = artifacts_uri(store)
    with closing(sqlite3.connect(store.absolute() / DATABASE)) as database, database:
        for number, place in database.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall():
            there, _, name = place.rpartition("/")
            if there == here or not (there.startswith("file:") and there.endswith(f"/{ARTIFACTS}")):
                continue
            moved = (f"{here}/{name}", number)
            database.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", moved)
            database.execute(
                "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) WHERE experiment_id = ?",
                (here, len(there) + 1, number),
            )
