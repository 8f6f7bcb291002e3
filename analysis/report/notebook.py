"""Face of the notebooks: a study opened, and its tables, verdicts and figures shown as a notebook's output."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from analysis.across.standings import Standings, standings
from analysis.explanations.figures import receptive_fields
from analysis.explanations.stored import PLACES, Explanations, find_explanations
from analysis.explanations.table import score_table
from analysis.records.table import measured
from analysis.rendering.canvas import Drawing, Picture, render
from analysis.rendering.tables import Table, to_markdown
from analysis.report.cost import outlook
from analysis.report.evidence import Evidence, absent_cells, load_evidence
from analysis.report.figures.response import response
from analysis.report.section import Part
from analysis.report.sections.claims import cost, differences
from analysis.report.tables.study import data_sets, declared_contrasts
from analysis.report.tables.verdicts import verdict_table
from analysis.verdicts.decisions import decide_all
from analysis.verdicts.verdict import Verdict

__all__ = [
    "PLACES",
    "explained_cells",
    "open_study",
    "outlook",
    "receptive_fields",
    "score_table",
    "show",
    "show_contrasts",
    "show_cost",
    "show_data",
    "show_figures",
    "show_response",
    "variants_of",
]

PIXELS = 560


def open_study(name: str) -> Evidence:
    """The evidence of a study in the store that MEDMAMBA_STORE names (by default `mlruns` beside `analysis`).

    MEDMAMBA_STUDY, where set, replaces the name, such as by a hash. Raises ValueError, one line, for an unknown study.
    """
    return load_evidence(_store(), os.environ.get("MEDMAMBA_STUDY", name))


def variants_of(study: Evidence) -> dict[str, dict[str, Any]]:
    """The variants of a study's records by id, as differences from MedMamba-T."""
    return {record["variant_id"]: record["variant"] for record in study.records.values()}


def explained_cells(study: Evidence) -> list[Explanations]:
    """The stored explanations of a study's cells; where there are none, prints the command that makes one."""
    found = find_explanations(_store(), study.name)
    if not found:
        print("No cell has been explained yet. For one, with the options of the launch (such as --set):")
        file = study.manifest.get("file") or f"search_spaces/{study.name}.yaml"
        print(f"  python -m study.explain {file} --variant baseline --dataset NAME --seed 0")
    return found


def show(*things: Drawing | Picture | Table | Part | str) -> None:
    """Displays figures and tables with their captions, those of a section, and Markdown text.

    Figures are PNG: a notebook that somebody else ran shows no SVG until it is trusted.
    """
    from IPython.display import Image, Markdown, display

    for thing in things:
        if isinstance(thing, Part):
            show(*thing.pictures, *thing.tables)
            continue
        if isinstance(thing, Table):
            display(Markdown(to_markdown(thing)))
            continue
        if isinstance(thing, str):
            display(Markdown(thing))
            continue
        picture = render(thing) if isinstance(thing, Drawing) else thing
        display(Image(picture.png, width=PIXELS, alt=picture.alt))
        display(Markdown(f"{picture.title}{'' if picture.title.endswith('?') else '.'} {picture.caption}"))


def show_data(study: Evidence) -> None:
    """Shows how many cells of a study are done, its data sets, and the cells without a result, which are counted."""
    from IPython.display import display

    absent = absent_cells(study)
    counts = f"{len(study.done())} cells are done, {len(absent)} are not"
    if study.is_search:
        counts = f"{len(study.variants)} variants: {counts}"
    print(f"{counts}; seeds {', '.join(map(str, study.seeds))}")
    show(data_sets(study))
    if len(absent):
        display(absent.groupby(["variant", "dataset", "status", "reason"]).size().rename("cells").reset_index())


def show_contrasts(study: Evidence) -> list[Verdict]:
    """Shows the declared contrasts of a study, decides on them, shows the verdicts, and returns them."""
    show(declared_contrasts(study))
    verdicts = decide_all(study.table, study.manifest, study.folder, rng=np.random.default_rng(0))
    show(verdict_table(verdicts, study.manifest), *[f"- {verdict.sentence}" for verdict in verdicts])
    return verdicts


def show_figures(study: Evidence, verdicts: list[Verdict]) -> None:
    """Shows the paired differences behind verdicts, data set by data set, and metrics against MACs on test."""
    show(differences(study, verdicts))
    show_cost(study)


def show_cost(study: Evidence, split: str = "test") -> dict[str, Standings]:
    """Shows metrics against MACs on a split, and returns the standings of the variants by metric."""
    names = measured(study.table, split)
    places = {metric: standings(study.table, metric, list(study.variants), split=split) for metric in names}
    show(cost(study, places, split))
    return places


def show_response(study: Evidence, positions: Mapping[str, float], axis: str, *, metrics: int = 2) -> None:
    """Shows how the study's first metrics follow a number of its variants (`positions`, by id), which `axis` names."""
    show(*[response(study, metric, positions, axis) for metric in study.metrics[:metrics]])


def _store() -> str:
    return os.environ.get("MEDMAMBA_STORE", "../../mlruns")
