"""Sections of a report on what its claims rest on: curves, classes, predictions, data, cells, versions."""

import json
import math
from collections.abc import Mapping, Sequence
from statistics import median

from analysis.audits import notices
from analysis.metrics import LOWER_IS_BETTER
from analysis.records.curves import late_gain
from analysis.records.predictions import Predictions
from analysis.records.schema import Record
from analysis.rendering.html import definitions, element, folded, note, paragraph
from analysis.rendering.marks import Mark
from analysis.report.decisions import Decisions
from analysis.report.drawing import Draw, draw_here
from analysis.report.evidence import Evidence
from analysis.report.section import DRAWN_DATASETS, Part, cuts, make_part
from analysis.report.tables import budgets as budget_tables
from analysis.report.tables import decisions as decision_tables
from analysis.report.tables import races as race_tables
from analysis.report.tables import study as study_tables
from analysis.report.tallies import CONFIDENCE_BINS, FEWEST_IN_BIN, SMALL_MATRIX, tally_cells
from analysis.words import counted, listed, metric_name, share

DECIDED = (
    "What a mean over images and seeds hides, for the variants that figures show: descriptions, none of them declared, "
    "so nothing here is a claim."
)
# Matrices of many classes take the whole width, so fewer are drawn.
MATRIX_VARIANTS, LARGE_MATRIX_VARIANTS = 6, 3


def curves(evidence: Evidence, drawn: Sequence[str], styles: Mapping[str, Mark], *, draw: Draw = draw_here) -> Part:
    """Learning curves on validation, a figure a data set. draw: what draws them."""
    metric = evidence.metrics[0]
    cells: dict[tuple[str, str], list[Record]] = {}
    for record in evidence.records.values():
        if record["status"] == "done":
            cells.setdefault((record["dataset"], record["variant_id"]), []).append(record)
    drawings = []
    for dataset in evidence.datasets[:DRAWN_DATASETS]:
        here = {v: cells[dataset, v] for v in drawn if (dataset, v) in cells}
        points = {v: [{"curves": r.get("curves")} for r in records] for v, records in here.items()}
        if any(c.get(f"val_{metric}") is not None for rs in points.values() for r in rs for c in r["curves"] or []):
            drawings.append(draw("datasets.learning_curves", dataset, points, metric, evidence.variants, styles))
    if not drawings:
        why = f"no finished cell has recorded {metric_name(metric)} on validation epoch by epoch"
        return make_part("curves", "Learning curves", [note(f"No learning curves: {why}.")])
    late = [late_gain(record, metric) for records in cells.values() for record in records]
    late = [gain for gain in late if not math.isnan(gain)]
    gained = (
        f"In the last fifth of its epochs the median cell gained {share(median(late), 4)} {metric_name(metric)}. "
        if late and metric not in LOWER_IS_BETTER
        else ""
    )
    text = (
        "The validation split, by which each cell's best epoch was chosen. Lines are means over seeds, shades reach "
        f"from the lowest to the highest seed, which is a range and no interval. {gained}{cuts(evidence, drawn)}"
    )
    blocks = [paragraph(text.strip())]
    done = [record for records in cells.values() for record in records if record.get("curves")]
    last = sum(record["best_epoch"] == record["curves"][-1]["epoch"] for record in done)
    if 2 * last > len(done):
        text = (
            f"In {last:,} of {counted(len(done), 'finished cell')} the last epoch was the best on validation: they may "
            "have had more to learn, and a longer recipe may order the variants otherwise."
        )
        blocks.append(note(text))
    return make_part("curves", "Learning curves", blocks, drawings)


def classes(evidence: Evidence, drawn: Sequence[str]) -> Part:
    """The section of results class by class."""
    if not len(evidence.done()):
        return make_part("classes", "Classes", [note("No results by class: no cell has finished.")])
    blocks = []
    alike = [evidence.variants[r["variant_id"]] for r in evidence.records.values() if _has_one_answer(r)]
    if alike:
        counts = listed([f"{label} {alike.count(label)}" for label in dict.fromkeys(alike)], 12)
        text = (
            f"{len(alike):,} of {counted(len(evidence.done()), 'finished cell')} gave every test image the same class "
            f"({counts}): networks that have learned little, between which differences say little."
        )
        blocks.append(note(text))
    return make_part("classes", "Classes", blocks, tables=[study_tables.per_class(evidence, drawn)])


def _has_one_answer(record: Record) -> bool:
    """Whether a finished cell predicts one class for every image: recall 1 for that class, 0 for all others."""
    if record["status"] != "done":
        return False
    recalls = sorted(row["recall"] for row in record["test"]["per_class"] if row["support"])
    return len(recalls) > 1 and recalls[-1] == 1 and not any(recalls[:-1])


def predictions(
    evidence: Evidence, drawn: Sequence[str], styles: Mapping[str, Mark], *, draw: Draw = draw_here
) -> list[Part]:
    """Calibration, confusion matrices and single decisions, all from per-image predictions on test.

    draw: what draws figures.
    """
    datasets = evidence.datasets[:DRAWN_DATASETS]
    decided: dict[tuple[str, str], Decisions] = {}

    def hear(variant_id: str, dataset: str, found: Predictions) -> None:
        decided.setdefault((variant_id, dataset), Decisions.of(found)).add(found)

    tallies, problems = tally_cells(evidence.folder, evidence.table, drawn, datasets, hear)
    reliability, matrices = [], []
    for dataset in datasets:
        here = {v: tallies[v, dataset] for v in drawn if (v, dataset) in tallies}
        reliability.append(draw("datasets.reliability", dataset, here, evidence.variants, styles, evidence.baseline))
        names = evidence.classes(dataset)
        few = evidence.chosen(MATRIX_VARIANTS if len(names) <= SMALL_MATRIX else LARGE_MATRIX_VARIANTS)
        shown = {v: tally for v, tally in here.items() if v in few}
        matrices.append(draw("datasets.confusion_matrices", dataset, names, shown, evidence.variants))
    blocks: list[str] = []
    if problems:
        cell_id, why = next(iter(problems.items()))
        are = "is" if len(problems) == 1 else "are"
        text = (
            f"{counted(len(problems), 'cell')} without usable predictions {are} not in the figures: {cell_id}, {why}."
        )
        blocks.append(note(text))
    if not tallies:
        blocks.append(note("No figures: no finished cell has kept its per-image probabilities."))
    tables = [study_tables.calibration(evidence, drawn)] if len(evidence.done()) else []
    calibrated, confused = list(blocks), list(blocks)
    if tallies:
        calibrated.append(
            paragraph(
                f"Accuracy in {CONFIDENCE_BINS} bins of confidence, the probability of the predicted class: on the "
                f"diagonal a model is right as often as it says. Bins with fewer than {FEWEST_IN_BIN} images "
                "a seed are not drawn. Grey is where 95 % of a calibrated model's bins would lie with as many test "
                "images as the baseline has in them. Below, the share of images in each bin. "
                f"{cuts(evidence, drawn)}".strip()
            )
        )
        confused.append(
            paragraph(
                "Percent of each true class (row) that was predicted as each class (column), on test, seeds together. "
                f"{cuts(evidence, drawn)}".strip()
            )
        )
    return [
        make_part("calibration", "Calibration", calibrated, reliability, tables),
        make_part("confusion", "Confusion matrices", confused, matrices),
        _decisions(evidence, drawn, decided),
    ]


def _decisions(evidence: Evidence, drawn: Sequence[str], decided: Mapping[tuple[str, str], Decisions]) -> Part:
    """The section on decisions about single images."""
    title = "Seeds, worst and rare classes"
    if not decided:
        return make_part("decisions", title, [note("No table: no finished cell has kept its per-image probabilities.")])
    blocks: list[str] = [paragraph(f"{DECIDED} {cuts(evidence, drawn)}".strip())]
    tables = [decision_tables.instability_table(evidence, drawn, decided)]
    if not tables[0].rows:
        blocks.append(note("No instability: no variant has two seeds with predictions on one data set."))
        tables = []
    tables.append(decision_tables.worst_class_table(evidence, drawn, decided))
    rare = decision_tables.frequency_table(evidence, drawn, decided)
    return make_part("decisions", title, blocks, tables=tables, folded_tables=[rare])


def data(evidence: Evidence) -> Part:
    """The section on data sets and their classes."""
    told: dict[str, None] = {}
    for record in evidence.records.values():
        told |= {f"{record['dataset']}: {text}.": None for text in record.get("data_notes") or []}
    return make_part("data", "Data sets", [note(text) for text in told], tables=[study_tables.data_sets(evidence)])


def audits(evidence: Evidence) -> Part | None:
    """The section on faults that an audit found in the data sets before the run; None where it found none."""
    said = notices(evidence.manifest.get("audits") or {}, evidence.sources)
    if not any(notice.fault for notice in said):
        return None
    items = [element("li", {}, f"{notice.line}.") for notice in said]
    text = (
        "An audit before the run found what makes results on these data sets other than they would be on new images: a "
        "picture that also stands in train, or a copy of it, was learned and not judged."
    )
    named = " ".join(dict.fromkeys(name for notice in said for name in notice.sets))
    look = paragraph("The pictures: ", element("code", {}, f"python -m study.audit {named} --data-root DIR"))
    return make_part("audit", "Faults of the data sets", [note(text), element("ul", {"class": "plain"}, *items), look])


def budgets(evidence: Evidence) -> Part | None:
    """The section on equal budgets: costs matched by width, recipes tuned by the same trials; None without either."""
    tables = [budget_tables.matched(evidence)] if evidence.manifest.get("matched") else []
    tables += [budget_tables.tuned(evidence)] if evidence.manifest.get("tuning") else []
    return make_part("budgets", "Equal budgets", [], tables=tables) if tables else None


def race(evidence: Evidence) -> Part | None:
    """The section on variants that a race dropped, and when; None where none raced."""
    found = evidence.manifest.get("racing")
    if not found:
        return None
    n_blocks, n_dropped = len(found["blocks"]), len(found["dropped"])
    looks = ", ".join(map(str, found["looks"]))
    n_variants = n_dropped + len(evidence.manifest.get("variants") or {})
    text = (
        f"The variants raced by validation {metric_name(found['metric'])}: {counted(n_blocks, 'block')}, each a seed "
        f"on a source, came in random order, and after {looks or 'none'} of them a variant "
        "was dropped whose mean over all blocks would be below the leader's, by a paired t test at a level fixed "
        f"before. The best of the study is dropped with a chance of at most {found['alpha']:g}. "
        f"{n_dropped} of {counted(n_variants, 'variant')} were dropped, and {found['cells_asked']:,} of "
        f"{found['cells_of_grid']:,} cells were run."
    )
    blocks = [paragraph(text)]
    if n_dropped:
        said = "Cells of dropped variants are in no other table, test or figure: they would compare unequal blocks."
        blocks.append(note(said))
    blocks += [note(f"{label} left the race: {why}.") for label, why in found["out"].items()]
    return make_part("race", "The race", blocks, tables=[race_tables.dropped(evidence)] if n_dropped else [])


def cells(evidence: Evidence) -> Part:
    """The section on cells without a result, and why."""
    table = study_tables.cells_without_result(evidence)
    blocks: list[str] = []
    if evidence.table.attrs["torn"]:
        blocks.append(note("The ledger's last line is half-written (its driver was killed) and does not count."))
    if not table.rows:
        blocks.append(paragraph("None: every cell of the study has finished."))
        return make_part("cells", "Cells without a result", blocks)
    return make_part("cells", "Cells without a result", blocks, tables=[table])


def provenance(evidence: Evidence) -> Part:
    """The section of commits, machines, versions, times, the recipe, and the study file word for word."""
    done = evidence.done()
    title = "Versions, recipe, file"
    after = []
    if evidence.manifest.get("recipe"):
        recipe = json.dumps(evidence.manifest["recipe"], ensure_ascii=False, indent=1)
        title_of = "before tuning" if evidence.manifest.get("tuning") else "that every variant was trained with"
        after.append(folded(f"The recipe {title_of}", element("pre", {}, recipe)))
    if evidence.manifest.get("file_text"):
        # Changes by --set and the like show in the recipe and in the head of the page.
        text = str(evidence.manifest["file_text"])
        after.append(folded("The study's file, before options of the command line", element("pre", {}, text)))
    if not len(done):
        return make_part("provenance", title, [note("No cell has finished.")], after=after)
    table = study_tables.provenance(evidence)
    blocks: list[str] = []
    if len(table.rows) > 1:
        text = "The results come from more than one commit, machine or set of versions, which may add to their spread."
        blocks.append(note(text))
    blocks.append(
        definitions(
            {
                "numerics version": ", ".join(map(str, sorted(set(done["numerics_version"])))),
                "first cell started": str(min(done["started"].dropna(), default="–")),
                "last cell finished": str(max(done["finished"].dropna(), default="–")),
                "computing time of finished cells": f"{float(done['seconds'].sum()) / 3600:.2f} h",
            }
        )
    )
    return make_part("provenance", title, blocks, tables=[table], after=after)


def limits(evidence: Evidence) -> Part:
    """The section on what a reader must not conclude from the page."""
    said = [
        "A verdict in general speaks of data sets like these under this recipe; it says nothing of other recipes.",
        "One of a single data set, or of single weights, does not carry over to other data.",
        "MACs and parameters are exact counts, no measure of speed; the front is one of means, which are uncertain.",
        "What is not in the table of declared contrasts is exploratory, however clear it looks.",
        "A word stands out where a declared contrast came to a conclusion, and nowhere else.",
    ]
    if any("level" in contrast for contrast in evidence.contrasts):
        said.insert(
            1, "One on these data sets holds for seeds and images drawn anew on them, and for no other data sets."
        )
    if evidence.is_search:
        said.insert(0, "Variants of a search were chosen by looking at results: none of them is claimed to be better.")
    items = element("ul", {"class": "plain"}, *[element("li", {}, text) for text in said])
    return make_part("limits", "What is not claimed", [items])
