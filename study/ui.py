"""Opens a store's MLflow pages on this machine: python -m study.ui [--store DIR] [--port PORT]."""

from __future__ import annotations

import argparse
import socket
import sqlite3
import sys
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

from study.store.database import DATABASE
from study.store.tracking import serve
from study.store.views import VIEW_TAG

HOST = "127.0.0.1"
PORT = 5000


def main(arguments: list[str] | None = None) -> int:
    """Runs the server until it is interrupted. Returns the exit status, 2 with a line of error for a wrong option."""
    parser = argparse.ArgumentParser(prog="python -m study.ui", description="Open a store's MLflow pages on loopback.")
    parser.add_argument("--store", type=Path, default=Path("mlruns"), metavar="DIR", help="the store (default: mlruns)")
    parser.add_argument("--port", type=int, help=f"the port (default: {PORT}, or a free one when that is taken)")
    options = parser.parse_args(arguments)
    try:
        _check(options.store)
        port = _port(options.port)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    address = f"http://{HOST}:{port}"
    print(f"MLflow of {options.store} on {address} (ready in a few seconds; end with Ctrl-C)")
    for study, view, path in views(options.store):
        print(f"  {study}: {view:<8}  {address}{path}")
    sys.stdout.flush()
    serve(options.store, HOST, port)
    return 0


def views(store: Path) -> list[tuple[str, str, str]]:
    """The pages that launches have prepared, as (study, view, path in the address), newest study first.

    Read straight from the database: importing MLflow takes longer than a person should wait for an address.
    """
    question = (
        "SELECT e.name, t.key, e.experiment_id FROM experiments e JOIN experiment_tags t USING (experiment_id) "
        "WHERE e.lifecycle_stage = 'active' AND t.key LIKE ? ORDER BY e.last_update_time DESC, t.key"
    )
    try:
        with closing(sqlite3.connect(f"{(store.absolute() / DATABASE).as_uri()}?mode=ro", uri=True)) as database:
            rows = database.execute(question, (f"{VIEW_TAG}%",)).fetchall()
    except sqlite3.Error:
        return []
    found = [(name, key.removeprefix(VIEW_TAG), number) for name, key, number in rows]
    return [(name, view, f"/#/experiments/{number}/runs?viewStateShareKey={view}") for name, view, number in found]


def _check(store: Path) -> None:
    if not (store / DATABASE).is_file():
        raise ValueError(f"{store}: the store must hold mlflow.db, which the first launch makes, got no such file")
    if find_spec("mlflow") is None:
        raise ValueError("mlflow must be installed, got no such package (pip install mlflow)")


def _port(wanted: int | None) -> int:
    """A free port: the wanted one, or else the usual one or any. Raises ValueError when the wanted one is taken."""
    for port in (PORT, 0) if wanted is None else (wanted,):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except (OSError, OverflowError):
                continue
            return int(probe.getsockname()[1])
    raise ValueError(f"--port must be a free port, got {wanted}")


if __name__ == "__main__":
    sys.exit(main())
