"""Audits data sets: python -m study.audit DATA … [--data-root DIR]. Heavy imports come after the options are read."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from study.telling.command import DEFAULT_STORE, Parser, read_settings, ready_streams

EPILOG = """\
Exit status: 0 nothing was found that makes results wrong, 1 something was (lines that begin with !), 2 an option or a
data set is wrong, 130 interrupted."""
PREFIX = "source."


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit status; a user's error is one line on standard error."""
    ready_streams()
    options = parser().parse_args(arguments)
    try:
        return _audit(options)
    except (ValueError, OSError) as error:
        _complain(error)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    made = Parser(
        prog="python -m study.audit",
        description="Look for what makes results on a data set wrong: equal and look-alike images across splits, "
        "pictures with two labels, patients in two splits; and for what a linear model reads off 16 × 16 pixels.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("data", metavar="DATA", nargs="+", help="names of data sets, as a study's file gives them")
    made.add_argument("--data-root", metavar="DIR", help="folder of data sets, such as NAME.npz")
    made.add_argument(
        "--set", metavar="source.KEY=VALUE", action="append", default=[], help="as in a study: source.image_size=64"
    )
    made.add_argument(
        "--fix", type=Path, metavar="FOLDER", help="write copies there whose look-alikes share a group, split anew"
    )
    made.add_argument("--store", type=Path, default=Path(DEFAULT_STORE), metavar="DIR", help="default: mlruns")
    made.add_argument("--out", type=Path, metavar="DIR", help="default: audits/NAME in the store")
    return made


def _audit(options: argparse.Namespace) -> int:
    names = list(dict.fromkeys(name for given in options.data for name in given.split(",") if name))
    specs = _specs(names, options)
    from analysis.audits import faults
    from study.audit.alike import find_pairs
    from study.audit.between import shared_pictures
    from study.audit.findings import audit
    from study.audit.lines import lines, shared_lines
    from study.audit.pool import pool_of
    from study.audit.regroup import fixed
    from study.audit.written import write
    from study.data import open_source
    from study.telling.progress import say

    status, audited, pools, keys = 0, [], {}, {}
    for name in names:
        try:
            dataset = open_source(specs[name]).load(name)
        except (ValueError, OSError) as error:
            # The others are audited all the same.
            _complain(error)
            status = 2
            continue
        pools[name], keys[name] = pool_of(dataset), dataset.info.source_key
        pairs = find_pairs(pools[name])
        found = audit(dataset, specs[name], pools[name], pairs)
        audited.append((dataset, found))
        say("\n".join([*lines(found), ""]))
        if options.fix is not None:
            say("\n".join([*fixed(dataset, pools[name], pairs, options.fix.absolute(), specs[name].get("root")), ""]))
        status = max(status, int(bool(faults(found))))
    shared = shared_pictures(pools)
    for line in shared_lines(shared, keys):
        say(line)
        status = max(status, int(line.startswith("!")))
    if audited:
        out = options.out or options.store / "audits" / _folder([dataset.info.name for dataset, _ in audited])
        say("\n".join(f"{what:<8}  {path}" for what, path in write(audited, shared, out.absolute()).items()))
    return status


def _specs(names: list[str], options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The specs of the sets' sources by name. Raises ValueError, one line, for a wrong setting or name."""
    from medmamba_variants.design.kinds import SettingError
    from study.data import source_for
    from study.file.keys import SOURCE
    from study.file.text import parse_scalar

    given: dict[str, Any] = {}
    for key, text in read_settings(options.set).items():
        if not key.startswith(PREFIX):
            raise ValueError(f"--set must name a key of source, such as source.image_size, got {key}")
        name = key.removeprefix(PREFIX)
        if name not in SOURCE:
            raise ValueError(f"--set {key} must be one of {', '.join(PREFIX + known for known in SOURCE)}")
        try:
            given[name] = SOURCE[name].kind.parse(parse_scalar(text, f"--set {key}"), (name,))
        except SettingError as error:
            raise ValueError(f"--set {key} {error.problem}") from None
    root = options.data_root or given.pop("root", None)
    return source_for(names, root, given.pop("kind", None), **given)


def _folder(names: list[str]) -> str:
    from analysis.rendering.marks import file_name

    return file_name(names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more")


def _complain(error: Exception) -> None:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
