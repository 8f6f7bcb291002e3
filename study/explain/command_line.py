"""Explains a cell: python -m study.explain FILE --variant LABEL --dataset NAME --seed N.

Records keep no weights, so the cell is trained again, which on the same machine gives the same network bit for bit;
the outcome is compared with the record. Then the network's maps, features, receptive fields and curves go into one
file, which `python -m analysis.explanations` reads.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.rendering.arguments import whole
from medmamba_variants.hints import did_you_mean
from study.telling.command import DEFAULT_STORE, Parser, read_settings, ready_streams

if TYPE_CHECKING:
    from medmamba_variants.networks import Network
    from study.declaration.definition import Study
    from study.store.ledger import Ledger

IMAGES = 512
STEPS = 20
SPLITS = ("test", "val")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command. Returns its exit status: 0, or 2 with one line on standard error for a user's error."""
    ready_streams()
    options = parser().parse_args(arguments)
    try:
        lines = _run(options)
        # Late, so that --help is instant.
        from study.telling.progress import say

        say("\n".join(lines))
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def parser() -> argparse.ArgumentParser:
    """The parser of the command line."""
    made = Parser(
        prog="python -m study.explain",
        description="Train a cell again and keep what its network looks at: Grad-CAM maps, features, receptive fields, "
        "deletion and insertion curves.",
        allow_abbrev=False,
    )
    made.add_argument("file", metavar="FILE", type=Path, help="the study, such as search_spaces/split_ratio.yaml")
    what = made.add_argument_group("which cell")
    what.add_argument("--variant", metavar="LABEL", required=True, help="as the study's tables call it, or its id")
    what.add_argument("--dataset", metavar="NAME", required=True, help="name of a data set")
    what.add_argument("--seed", type=int, required=True, metavar="N", help="training seed")
    what.add_argument("--data-root", metavar="DIR", help="folder of data sets, such as NAME.npz")
    what.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], help="as the cell was launched with")
    how = made.add_argument_group("what of it")
    how.add_argument("--split", choices=SPLITS, default=SPLITS[0], help="default: test")
    how.add_argument("--images", type=whole, default=IMAGES, metavar="N", help=f"at most so many (default: {IMAGES})")
    how.add_argument("--steps", type=whole, default=STEPS, metavar="N", help=f"of the curves (default: {STEPS})")
    how.add_argument("--predicted", action="store_true", help="maps for the predicted classes, not the labelled ones")
    how.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N (default: auto)")
    how.add_argument("--threads", type=whole, default=1, metavar="N", help="CPU threads, as at launch (default: 1)")
    keep = made.add_argument_group("where")
    keep.add_argument("--store", type=Path, default=Path(DEFAULT_STORE), metavar="DIR", help="default: mlruns")
    keep.add_argument("--out", type=Path, metavar="DIR", help="default: explanations in the store")
    return made


def find_variant(study: Study, name: str, ledger: Ledger) -> tuple[str, Network]:
    """A variant and its label, found by label or id in the study's grid or, for a search, in the records."""
    from medmamba_variants.config import VariantConfig

    known = dict(study.variants())
    if not study.is_grid:
        for record in ledger.records().values():
            if record.get("study") == study.name:
                found = VariantConfig.from_dict(record["variant"])
                known.setdefault(study.label(found), found)
    for label, variant in known.items():
        if name in (label, variant.variant_id):
            return label, variant
    hint = did_you_mean(name, known, otherwise=f"it has {', '.join(known) or 'none in this store'}")
    raise ValueError(f"{study.path}: --variant must be a variant of the study, got {name!r}; {hint}")


def _run(options: argparse.Namespace) -> list[str]:
    from analysis.explanations.stored import load_explanations
    from analysis.explanations.table import describe
    from study.declaration.cells import Cell
    from study.explain.cell import Options, compared, explain_cell, write
    from study.file.reading import load_study
    from study.planning.inputs import read_inputs
    from study.store.ledger import open_ledger

    study = load_study(
        options.file,
        datasets=options.dataset,
        data_root=options.data_root,
        seeds=str(options.seed),
        settings=read_settings(options.set),
    )
    if len(study.datasets) != 1:
        raise ValueError(f"--dataset must name one data set, got {options.dataset!r}")
    store = options.store.absolute()
    ledger = open_ledger(store)
    label, variant = find_variant(study, options.variant, ledger)
    cell = Cell(variant, study.recipe, read_inputs(study).refs[study.datasets[0]], options.seed)
    chosen = Options(
        split=options.split,
        images=options.images,
        steps=options.steps,
        predicted=options.predicted,
        device=options.device,
        threads=options.threads,
    )
    path = (options.out or store / "explanations").absolute() / f"{cell.cell_id}.npz"
    _check_folder(path.parent)
    explanation = explain_cell(cell, chosen)
    write(path, explanation.arrays, {"study": study.name, "variant_label": label, **explanation.about})
    return [
        compared(ledger, cell, explanation),
        *describe(load_explanations(path)),
        f"file    {path}",
        f"look    python -m analysis.explanations {path}",
    ]


def _check_folder(folder: Path) -> None:
    """Makes the folder. Raises ValueError where no file can be written to it, before hours are spent on one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"--out must be a folder to write to, got {folder} ({error.strerror})") from None
