"""Hands a trained cell on: python -m study.export CELL --to weights|onnx|torch -o FILE.

The cell must have been launched with --keep weights. Files take uint8 images (batch, height, width, channels) and give
probabilities: the cell's normalisation is inside. ONNX and torch files run without this suite, and are compared with
the network on random images before they are written.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from study.telling.command import DEFAULT_STORE, Parser, ready_streams

ENDINGS = {"weights": ".safetensors", "onnx": ".onnx", "torch": ".pt2"}


def main(arguments: list[str] | None = None) -> int:
    """Runs the command. Returns its exit status: 0, or 2 with one line on standard error for a user's error."""
    ready_streams()
    options = parser().parse_args(arguments)
    try:
        line = _run(options)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    print(line)
    return 0


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    made = Parser(
        prog="python -m study.export",
        description="Hand a trained network on: its weights with all that is needed to use them, or a file that runs "
        "without this suite.",
        allow_abbrev=False,
    )
    made.add_argument("cell", metavar="CELL", help="id of a cell (its record has it), its beginning, or a kept file")
    made.add_argument("--to", choices=tuple(ENDINGS), required=True, help="kind of file")
    made.add_argument("-o", "--out", type=Path, metavar="FILE", help="default: CELL with the ending of its kind")
    made.add_argument("--store", type=Path, default=Path(DEFAULT_STORE), metavar="DIR", help="default: mlruns")
    return made


def _run(options: argparse.Namespace) -> str:
    if options.to == "onnx":
        from study.export.graphs import check_onnx

        # Before anything takes time.
        check_onnx()
    from study.export.trained import kept_file, load_trained
    from study.store.ledger import whole_file

    source = kept_file(options.store.absolute(), options.cell)
    trained = load_trained(source)
    target = options.out or Path(f"{trained.about['cell_id']}{ENDINGS[options.to]}")
    if target.suffix != ENDINGS[options.to]:
        raise ValueError(f"--out must end in {ENDINGS[options.to]} for --to {options.to}, got {target}")
    if options.to == "weights":
        content, agrees = source.read_bytes(), ""
    else:
        from study.export.graphs import onnx_file, torch_file

        content, worst = (onnx_file if options.to == "onnx" else torch_file)(trained)
        agrees = f"; as the network on random images, {f'to {worst:.0e}' if worst else 'to the last bit'}"
    with whole_file(target.absolute()) as file:
        file.write(content)
    shape = ", ".join(map(str, trained.shape))
    return (
        f"{target} ({len(content) / 1e6:.1f} MB): uint8 images (batch, {shape}) in, probabilities of "
        f"{len(trained.about['classes'])} classes out{agrees}"
    )
