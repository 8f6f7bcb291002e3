"""Writes docs/studies.md, the list of all studies that ship: python -m study.telling.index docs/studies.md."""

import argparse
from pathlib import Path

from analysis.words import counted
from study.declaration.definition import Study
from study.file.reading import load_study
from study.telling.progress import say

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "search_spaces"

HEAD = """\
# Studies

Every study that ships, one YAML file each, listed from the files by `python -m study.telling.index docs/studies.md`.
All but those on real images run on built-in images, without any download; `--data-root DIR --datasets A,B` asks the
same of your own.
A cell is one variant trained on one data set with one seed; `--dry-run` says what the cells cost on your machine.
Controls, caveats and contrasts, with baseline, metric and margin, stand in the files.
"""
# Folder → heading and introduction.
GROUPS = {
    "": ("First questions", "What each part of the published network is worth."),
    "blocks": ("Inside a block", "Shares of channels, what joins the branches, what stands beside the scan."),
    "scan": ("The scan", "Orders, directions, corners, states and selection, and what could take its place."),
    "plan": ("The plan of the network", "What follows what, and how maps are halved."),
    "real": ("On real images", "Public data sets of independent sources, each a file below `--data-root DIR`."),
    "data": (
        "Data, costs and luck",
        "Questions in which data, counts or seeds are the axis, and networks the samples.",
    ),
}
# What no file asks yet, and what it waits for.
WAITS = {
    "Scans of fewer positions in a network that was trained with all":
        "a way to change a trained network; scan/token_reduction.yaml trains with fewer",
    "Pretraining against architecture on few images; transfer to other hospitals":
        "pretrained weights and external test sets",
    "Corruption and shift at test alone": "data sets whose test split is drawn otherwise than their training split",
    "Filters that stop bands of frequencies at test": "a change of images at test alone",
    "How alike branches become with depth": "features of branches, which study.explain does not keep",
    "Costs that leave the scan out, as many published counts do": "records that keep such a count",
    "Step sizes, B and C in another order than the map, tokens scrambled by a wrong reshape": "both quirks as axes",
}  # fmt: skip


def page() -> str:
    """The page as Markdown: a table of the studies in each folder, then what waits."""
    lines = [HEAD]
    for folder, (heading, introduction) in GROUPS.items():
        lines += [
            f"## {heading}",
            "",
            introduction,
            "",
            "| study | question | hypothesis | cells |",
            "|---|---|---|---|",
        ]
        for path in sorted((FOLDER / folder).glob("*.yaml")):
            study = load_study(path)
            link = f"[{study.name.replace('_', ' ')}](../{path.relative_to(ROOT).as_posix()})"
            lines.append(f"| {link} | {study.question} | {study.hypothesis} | {_cells(study)} |")
        lines.append("")
    lines += ["## What waits", "", "| question | waits for |", "|---|---|"]
    lines += [f"| {question} | {need} |" for question, need in WAITS.items()]
    return "\n".join(lines) + "\n"


def _cells(study: Study) -> str:
    variants = len(study.variants()) if study.is_grid else study.strategy.trials
    trials = 0 if study.tuning is None else len(study.tuning.recipes) * len(study.tuning.seeds)
    total = variants * (trials + len(study.seeds)) * len(study.datasets)
    seeds, names = counted(len(study.seeds), "seed"), counted(len(study.datasets), "data set")
    if study.tuning is not None and study.tuning.datasets:
        some = len(study.tuning.datasets)
        judged = f"{counted(len(study.seeds), 'seed')} × {names}"
        total = variants * (trials * some + len(study.seeds) * len(study.datasets))
        return f"{counted(variants, 'variant')} × ({counted(trials, 'trial')} × {some} of them + {judged}) = {total}"
    seeds = f"({counted(trials, 'trial')} + {seeds})" if trials else seeds
    sizes = (counted(variants, "variant"), seeds, names)
    return f"{' × '.join(sizes)} = {total}"


def main() -> None:
    """Writes the page to the file named on the command line, or prints it."""
    parser = argparse.ArgumentParser(prog="python -m study.telling.index", description="The list of shipped studies.")
    parser.add_argument("file", metavar="FILE", type=Path, nargs="?", help="where to write it (left out: print it)")
    file = parser.parse_args().file
    if file is None:
        say(page().rstrip("\n"))
    else:
        file.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
