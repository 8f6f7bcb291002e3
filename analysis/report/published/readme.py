"""The README of a published study: question, answer, one figure, the table, and what is not claimed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from analysis.rendering.tables import Table, to_markdown
from analysis.report.evidence import Evidence
from analysis.verdicts.verdict import Verdict, corrected, stated
from analysis.words import bounds, counted, listed, metric_name, signed

# What is written by hand, in files of the folder: beside the results, and where the run was not as declared.
NOTES, DEVIATIONS = "notes.md", "deviations.md"
FIGURE = "contrasts.png"


def readme(evidence: Evidence, verdicts: Sequence[Verdict], table: Table, notes: str = "", deviations: str = "") -> str:
    """The page as Markdown.

    notes: what belongs beside the results, deviations: what was done otherwise than declared, both Markdown or empty.
    """
    manifest = evidence.manifest
    shown = of_first_metric(verdicts)
    blocks = [f"# {evidence.name.replace('_', ' ')}", f"**{str(manifest.get('question') or '').strip()}**"]
    blocks += [" ".join(answer(verdicts))]
    if shown:
        blocks += [f"![Contrasts in {metric_name(shown[0].contrast.metric)}]({FIGURE})"]
    blocks += ["## Results", to_markdown(table).strip(), notes.strip()]
    blocks += ["## What is not claimed", _listed(_unclaimed(evidence, verdicts))]
    blocks += ["## Declared before the run", _listed(_declared(evidence))]
    blocks += ["## Deviations from the plan", deviations.strip() or "None."]
    blocks += ["## Run it, and read it", _commands(evidence)]
    return "\n\n".join(block for block in blocks if block) + "\n"


def of_first_metric(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts with an estimate in the metric of the first declared contrast."""
    metrics = [verdict.contrast.metric for verdict in verdicts]
    return [v for v in verdicts if v.contrast.metric == metrics[0] and v.per_dataset]


def answer(verdicts: Sequence[Verdict]) -> list[str]:
    """Three sentences: what differs, what is equivalent, and what stays open; of the first metric, and of others."""
    if not verdicts:
        return ["The study declared no contrast: its figures describe, and claim nothing."]
    said = []
    first = of_first_metric(verdicts)
    others = [verdict for verdict in verdicts if verdict.contrast.metric != verdicts[0].contrast.metric]
    different = [v for v in first if v.outcome in ("superior", "inferior") and not v.exploratory]
    equal = [v for v in first if v.outcome == "equivalent" and not v.exploratory]
    rest = [v for v in first if v not in different and v not in equal]
    metric = metric_name(verdicts[0].contrast.metric)
    if different:
        said.append(f"In {metric}, {listed([_told(v) for v in different])}.")
    else:
        said.append(f"In {metric}, no declared contrast found a difference.")
    if equal:
        names = listed([f"{v.contrast.against_label} ({_numbers(v)})" for v in equal])
        said.append(f"Equivalent to {_baselines(equal)} within the margin of {equal[0].contrast.margin:g}: {names}.")
    else:
        said.append("None was shown to be equivalent within its margin.")
    open_ones = f"Open remain {listed([f'{v.contrast.against_label} ({_numbers(v)})' for v in rest])}" if rest else ""
    counts = {
        o: sum(v.outcome == o and not v.exploratory for v in others) for o in ("superior", "inferior", "equivalent")
    }
    came = listed([f"{count} {outcome}" for outcome, count in counts.items() if count]) or "none to a conclusion"
    names = listed(sorted({metric_name(v.contrast.metric) for v in others}))
    also = f"of {counted(len(others), 'contrast')} in {names}, {came}" if others else ""
    last = "; ".join(part for part in (open_ones, also) if part)
    return [*said, f"{last[0].upper()}{last[1:]}."] if last else said


def _told(verdict: Verdict) -> str:
    contrast = verdict.contrast
    return f"{contrast.against_label} was {verdict.outcome} to {contrast.baseline_label} ({_numbers(verdict)})"


def _numbers(verdict: Verdict) -> str:
    estimate, interval, _ = stated(verdict)
    return f"{signed(estimate)} {bounds(interval, 4, sign=True)}" if interval.is_defined else signed(estimate)


def _baselines(verdicts: Sequence[Verdict]) -> str:
    return listed(list(dict.fromkeys(v.contrast.baseline_label for v in verdicts)))


def _unclaimed(evidence: Evidence, verdicts: Sequence[Verdict]) -> list[str]:
    said = [str(evidence.manifest.get("caveat") or "").strip()]
    if any(v.outcome == "inconclusive" for v in verdicts):
        said.append("What stays open is neither a difference nor its absence: the interval says how large it may be.")
    if any(v.exploratory for v in verdicts):
        said.append("What is marked exploratory was not declared before a look at results, and is no claim.")
    said.append("MACs and parameters are counts, no measure of speed.")
    return [text for text in said if text]


def _declared(evidence: Evidence) -> list[str]:
    manifest = evidence.manifest
    said = [f"Hypothesis: {manifest['hypothesis']}"] if manifest.get("hypothesis") else []
    said += [f"Controls: {manifest['controls']}"] if manifest.get("controls") else []
    said.append(
        f"{counted(len(evidence.datasets), 'data set')} of {counted(evidence.n_sources, 'independent source')}: "
        f"{', '.join(evidence.datasets)}; seeds {', '.join(map(str, evidence.seeds))}."
    )
    said.append(f"Recipe: {', '.join(f'{key} {value}' for key, value in (manifest.get('recipe') or {}).items())}.")
    tuning = manifest.get("tuning") or {}
    if tuning:
        axes = "; ".join(f"{name} of {', '.join(map(str, values))}" for name, values in tuning["axes"].items())
        where = ", ".join(tuning.get("datasets") or evidence.datasets)
        said.append(f"Tuned alike for every variant: {axes}, by validation on {where}, seed {tuning['seeds'][0]}.")
    families = Counter((c.get("family"), c["metric"], c.get("margin", 0)) for c in evidence.contrasts)
    said += [
        f"{counted(count, 'contrast')} in {metric_name(metric)}, margin {margin:g}."
        for (_, metric, margin), count in families.items()
    ]
    if evidence.contrasts:
        said.append(f"α {manifest.get('alpha')}, {corrected(manifest.get('correction'))} within a family.")
    return said


def _commands(evidence: Evidence) -> str:
    manifest = evidence.manifest
    file = str(manifest.get("file") or "")
    done = [record for record in evidence.records.values() if record["status"] == "done"]
    hours = sum(float(record["seconds"]) for record in done) / 3600
    commits = listed(sorted({str(record.get("commit")) for record in done if record.get("commit")}))
    machines = listed(sorted({str((record.get("machine") or {}).get("cpu")) for record in done}))
    lines = [
        "```",
        f"python -m study.launch {file} --data-root DIR   # {counted(len(done), 'cell')}, {hours:.1f} hours one by one",
        f"python -m analysis.report docs/studies/{evidence.name}   # all of this again, from its ledger",
        "```",
        "",
        f"Run at {commits or 'an unknown commit'} on {machines}. [The page](report.html) has every verdict with its",
        "numbers, the data sets, costs, calibration and classes; [tables](tables) are CSV; [ledger](ledger) has each",
        "cell's record and its predictions on test images.",
    ]
    return "\n".join(lines)


def _listed(items: Sequence[str]) -> str:
    return "\n".join(f"- {' '.join(item.split())}" for item in items)
