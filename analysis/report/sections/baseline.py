"""What a study's baseline is: its settings, by name and in words, and what it costs."""

import math
from collections.abc import Mapping
from typing import Any

from analysis.across.standings import mean_costs
from analysis.rendering.html import Html, definitions, element, paragraph
from analysis.report.evidence import Evidence
from analysis.words import counted, quantity

# With more, a reader has the table of contrasts.
TOLD = 3
FOREIGN = {"timm": "the classifier {0} of timm {1}", "module": "the module {0}"}
PUBLISHED = "MedMamba-T as published (arXiv:2403.03849)"


def baselines(evidence: Evidence) -> list[Html]:
    """Blocks on each variant that contrasts start from; none where nothing is compared.

    A setting is one in which it departs from the published MedMamba-T; its meaning stands in the manifests of studies
    that keep it.
    """
    found = {c["baseline"]: c for c in evidence.contrasts if c.get("baseline_variant") is not None}
    meanings = evidence.manifest.get("meanings") or {}
    blocks = []
    for variant_id, contrast in list(found.items())[:TOLD]:
        settings: Mapping[str, Any] = contrast["baseline_variant"]
        label = contrast.get("baseline_label") or evidence.variants.get(variant_id, variant_id)
        what, settings = _what(settings, evidence)
        text = f" is what other variants are compared with: {what}{_cost(evidence, variant_id)}"
        blocks.append(paragraph(element("span", {"class": "name"}, label), text))
        if settings:
            items = {
                name: f"{in_words(value)}{f' – {meanings[name]}' if name in meanings else ''}"
                for name, value in settings.items()
            }
            blocks.append(definitions(items, wide=True))
    return blocks


def _what(settings: Mapping[str, Any], evidence: Evidence) -> tuple[str, dict[str, Any]]:
    """What a network is, as sentences, and the settings to list."""
    for key, sentence in FOREIGN.items():
        if key in settings:
            rest = {name: value for name, value in settings.items() if name not in (key, "timm_major", "source")}
            end = f" with {counted(len(rest), 'setting')} of its own." if rest else " as it comes."
            return f"{sentence.format(settings[key], settings.get('timm_major', ''))}{end}", rest
    preset = ""
    if evidence.manifest.get("base_name") and settings == evidence.manifest.get("base"):
        preset = f"the preset {evidence.manifest['base_name']}: "
    but = f", but for {counted(len(settings), 'setting')}. All else is as published." if settings else "."
    return f"{preset}{PUBLISHED}{but}", dict(settings)


def in_words(value: Any) -> str:
    """A setting's value for a reader: lists without brackets, branches as shares, yes and no."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {in_words(of)}" if of else str(name) for name, of in value.items())
    if isinstance(value, list | tuple):
        if len(value) == 2 and isinstance(value[0], float) and isinstance(value[1], str | Mapping):
            part = "all channels" if value[0] == 1 else f"{value[0]:g} of the channels"
            return f"{part} through {in_words(value[1])}"
        nested = any(isinstance(one, list | tuple) and not _is_branch(one) for one in value)
        return ("; " if nested else ", ").join(in_words(one) for one in value)
    return "none" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def _is_branch(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], float)


def _cost(evidence: Evidence, variant_id: str) -> str:
    done = evidence.done()
    if variant_id not in set(done["variant_id"]):
        return ""
    costs = mean_costs(done, ["cost.params", "cost.macs"], []).loc[variant_id]
    if math.isnan(costs["cost.macs"]):
        return ""
    return (
        f" It has {quantity(costs['cost.params'])} parameters and takes {quantity(costs['cost.macs'])} MACs for an "
        "image (mean over data sets)."
    )
