"""Runs a study: python -m study.launch FILE. Heavy imports come after the options are read, so --help is instant."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import shlex
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType

from analysis.arguments import whole
from study.telling.command import DEFAULT_STORE, Parser, read_settings, ready_streams

SMOKE_CELLS = 2
# Read when the libraries are imported; values set by the user stay.
SETTINGS = {"MLFLOW_DISABLE_TELEMETRY": "true", "RAY_USAGE_STATS_ENABLED": "0"}

EPILOG = """\
The same command again runs only what is missing or failed. Exit status: 0 all cells are done, 1 a cell failed,
2 the study, the data or an option is wrong, 130 interrupted."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit status; a user's error is one line on standard error."""
    ready_streams()
    given = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(given)
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    came: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt

    # A signal that the caller has silenced stays silenced, so that nohup keeps working.
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in heard}
    try:
        return _launch(options, f"python -m study.launch {shlex.join(given)}")
    except (Exception, KeyboardInterrupt) as error:
        # A library interrupted by a signal during its import may raise a different error.
        if came or isinstance(error, KeyboardInterrupt):
            print("interrupted; finished cells are kept, and the same command goes on from there", file=sys.stderr)
            return 130
        if not isinstance(error, ValueError | OSError):
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    made = Parser(
        prog="python -m study.launch",
        description="Train the variants of a study, record every cell, and print what came of each variant.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("file", metavar="FILE", type=Path, help="the study, such as search_spaces/split_ratio.yaml")
    mode = made.add_mutually_exclusive_group()
    mode.add_argument(
        "--dry-run",
        action="store_true",
        help="tell cells, costs, reachable p values and the time; run nothing; refuse what cannot reach its own α",
    )
    mode.add_argument("--smoke", action="store_true", help="run two cells of one epoch, kept apart under STORE/smoke")

    what = made.add_argument_group("what to run (in place of what the file says)")
    what.add_argument("--datasets", metavar="A,B", help="names of data sets")
    what.add_argument("--data-root", metavar="DIR", help="folder of data sets, such as NAME.npz")
    what.add_argument("--seeds", metavar="0,1,2", help="training seeds")
    what.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[], help="any key of the file: --set recipe.epochs=5"
    )

    what.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="run the I-th of N parts alone, in a store of its own (then: study.merge)",
    )

    where = made.add_argument_group("where to run (never changes a result)")
    where.add_argument("--executor", choices=("inline", "ray"), help="default: ray for five cells or more")
    where.add_argument("--workers", type=whole, metavar="N", help="cells at a time (ray; default: one a core)")
    where.add_argument("--threads", type=whole, default=1, metavar="N", help="CPU threads a cell (default: 1)")
    where.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    where.add_argument("--gpus-per-cell", type=_share, metavar="X", help="GPUs a cell, 0.25 say (ray)")
    where.add_argument(
        "--checkpoint-every",
        type=_seconds,
        default=120.0,
        metavar="SECONDS",
        help="how often a cell under way is kept, to go on there after a kill (default: 120; 0: never)",
    )
    where.add_argument("--address", help="a running Ray cluster: auto, or HOST:PORT")

    keep = made.add_argument_group("where to keep the results")
    keep.add_argument("--store", type=Path, default=Path(DEFAULT_STORE), metavar="DIR", help="default: mlruns")
    keep.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="MLflow's (default: MLFLOW_TRACKING_URI, else a database in the store), or none",
    )
    keep.add_argument(
        "--keep",
        choices=("weights",),
        help="also keep each network that is trained now (for study.export, study.predict)",
    )
    keep.add_argument("--no-report", action="store_true", help="end with the verdicts, without the page of figures")
    return made


def _launch(options: argparse.Namespace, command: str) -> int:
    settings = read_settings(options.set)
    _check_executor(options)
    from study.file.reading import load_study

    study = load_study(
        options.file,
        datasets=options.datasets,
        data_root=options.data_root,
        seeds=options.seeds,
        settings=settings,
    )
    if options.smoke:
        study = dataclasses.replace(study, recipe=dataclasses.replace(study.recipe, epochs=1))
    from study.executors.choice import Options
    from study.running.session import dry_run, launch

    store = options.store.absolute() / ("smoke" if options.smoke else "")
    chosen = Options(
        store=store,
        executor=options.executor,
        workers=options.workers,
        gpus_per_cell=options.gpus_per_cell,
        address=options.address,
        tracking_uri=_tracking_uri(options.tracking_uri, store),
        device=options.device,
        threads=options.threads,
        limit=SMOKE_CELLS if options.smoke else None,
        report=not options.no_report,
        keep=options.keep,
        checkpoint_every=options.checkpoint_every,
        shard=options.shard,
    )
    if options.dry_run:
        dry_run(study, chosen)
        return 0
    if options.smoke:
        # A smoke test whose cells are already done would test nothing.
        for name in ("ledger", "optuna"):
            shutil.rmtree(store / name, ignore_errors=True)
    return launch(study, chosen, command)


def _tracking_uri(given: str | None, store: Path) -> str | None:
    if given == "none":
        return None
    from study.store.database import absolute_uri, default_uri

    given = given or os.environ.get("MLFLOW_TRACKING_URI")
    if given is not None:
        return absolute_uri(given)
    if not {"?", "%"}.isdisjoint(str(store)):
        raise ValueError(
            f"--store must be a path without ? and %, which mean something else in the address of MLflow's database "
            f"(or go with --tracking-uri none), got {store}"
        )
    return default_uri(store)


def _check_executor(options: argparse.Namespace) -> None:
    """Raises ValueError where an option would have no effect."""
    if options.executor != "inline":
        return
    for name in ("workers", "gpus_per_cell", "address"):
        value = getattr(options, name)
        if value is not None:
            raise ValueError(f"--{name.replace('_', '-')} must be left out with --executor inline, got {value}")


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number of seconds, got {text}")
    return number


def _shard(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"must be I/N with I from 1 to N, such as 1/4, got {text}")
    return int(number), int(count)


def _share(text: str) -> float:
    number = float(text)
    if not 0 <= number <= 64:
        raise argparse.ArgumentTypeError(f"must be between 0 and 64, got {text}")
    return number


if __name__ == "__main__":
    sys.exit(main())
