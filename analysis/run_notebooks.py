"""Runs the notebooks on a store: python -m analysis.run_notebooks [NAME …] [--store DIR].

Each notebook has the name of its study. The executed copies go to `notebooks` in the store; the originals, which keep
no outputs, are left as they are. A study that the store does not hold is passed over.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from analysis.records.manifests import parsed_manifests
from analysis.records.places import ledger_folder

if TYPE_CHECKING:
    from nbformat import NotebookNode

NOTEBOOKS = Path(__file__).resolve().parent / "notebooks"
# Per cell; figures of a hundred variants take a while.
SECONDS = 600


def main(arguments: list[str] | None = None) -> int:
    """Runs the command. Returns its exit status: 0, 1 if a notebook failed or none could run, 2 for a user's error."""
    options = _parser().parse_args(arguments)
    try:
        known = sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb"))
        for name in options.names:
            if name not in known:
                raise ValueError(f"NAME must be one of {', '.join(known)}, got {name!r}")
        store = options.store.absolute()
        studies = stored_studies(store)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    ran = failed = 0
    for name in options.names or known:
        hashes = studies.get(name, [])
        if not hashes:
            print(f"{name}: no such study in {store}, passed over")
        for study_hash in hashes:
            copy = store / "notebooks" / (f"{name}.ipynb" if len(hashes) == 1 else f"{name}-{study_hash}.ipynb")
            problem = run_notebook(NOTEBOOKS / f"{name}.ipynb", copy, store, study_hash)
            ran += 1
            failed += problem is not None
            print(f"{name}: {problem}, see {copy}" if problem else f"{name}: {copy}")
    return 1 if failed or not ran else 0


def stored_studies(store: Path) -> dict[str, list[str]]:
    """The hashes of a store's studies by their names. Raises ValueError where there is no ledger."""
    found: dict[str, list[str]] = {}
    for study_hash, manifest in parsed_manifests(ledger_folder(store)).items():
        found.setdefault(str(manifest.get("name")), []).append(study_hash)
    return found


def run_notebook(notebook: Path, copy: Path, store: Path, study: str) -> str | None:
    """Runs one notebook on a study of a store, writes the executed copy and returns its error in one line, or None.

    A notebook that fails is written as far as it got, with the traceback in it.
    """
    import nbformat
    from nbclient.exceptions import CellExecutionError

    content = nbformat.read(notebook, as_version=4)
    problem = None
    try:
        execute(content, notebook.parent, store, study)
    except CellExecutionError as error:
        problem = f"{error.ename}: {error.evalue}".splitlines()[0]
    copy.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(content, copy)
    return problem


def execute(content: NotebookNode, folder: Path, store: Path, study: str) -> None:
    """Runs a notebook's cells in a fresh kernel and fills in their outputs; raises nbclient's CellExecutionError."""
    from nbclient import NotebookClient
    from traitlets.config import Config

    with TemporaryDirectory(prefix="notebook") as sockets:
        # Sockets in the file system, in a folder that only this user can read: no port is opened.
        private = Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/kernel"}})
        client = NotebookClient(content, timeout=SECONDS, kernel_name="python3", record_timing=False, config=private)
        client.resources = {"metadata": {"path": str(folder)}}
        client.execute(env={**os.environ, "MEDMAMBA_STORE": str(store), "MEDMAMBA_STUDY": study})


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m analysis.run_notebooks", description="Run notebooks on a store.")
    parser.add_argument("names", metavar="NAME", nargs="*", help="notebooks, such as split_ratio (default: all)")
    parser.add_argument("--store", type=Path, default=Path("mlruns"), metavar="DIR", help="default: mlruns")
    return parser


if __name__ == "__main__":
    sys.exit(main())
