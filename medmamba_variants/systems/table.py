"""Systems as text: the lines of the command, a system in full, and the page docs/systems.md."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable

import yaml

from medmamba_variants.config import VariantConfig
from medmamba_variants.macs import closed_form_macs
from medmamba_variants.systems.registry import SYSTEMS
from medmamba_variants.systems.system import EVIDENCE, LISTS, TIERS, System

IMAGE_SIZE = 224
CLASSES = 6
# The head that published numbers of parameters include.
PUBLISHED_CLASSES = 1000

# Parameters of a variant with so many classes.
Count = Callable[[VariantConfig, int], int]

INTRODUCTION = f"""# Systems

Every system named by the reading notes on MedMamba and Mamba, by a list of 88 papers on Mamba in medical image
segmentation and by their abstracts, and among related backbones and closest rivals: as a variant of this builder, or
with what that waits for. `python -m medmamba_variants.systems --markdown` writes this page.

A variant is its difference from MedMamba-T; `medmamba_variants.SYSTEMS["vm_unet"].config` is that of the row vm_unet.
Parameters and multiply-adds (MACs, the scan included) are the variant's for an image of {IMAGE_SIZE}×{IMAGE_SIZE}
pixels, three channels and {CLASSES} classes. A network for segmentation stands here with the blocks of its encoder.

Evidence: {{evidence}}.
"""
HEADER = (
    "| name | system | mechanism | variant, or what it waits for | parameters | MACs | evidence | deviates |\n"
    "|---|---|---|---|---|---|---|---|"
)
PUBLISHED = f"""
## Against published numbers of parameters

With a head for {PUBLISHED_CLASSES} classes and three channels.

| name | published | by | here | difference | why |
|---|---|---|---|---|---|"""


def difference(config: VariantConfig) -> str:
    """A variant as its difference from MedMamba-T, in the short form of labels."""
    label = config.label(VariantConfig())
    return "MedMamba-T itself" if label == "baseline" else label


def multiply_adds(config: VariantConfig, classes: int = CLASSES) -> int:
    """Multiply-adds of a variant for one image of 224×224 pixels and three channels, in closed form."""
    return closed_form_macs(config, image_size=IMAGE_SIZE, num_classes=classes)


def parameters(config: VariantConfig, classes: int) -> int:
    """Parameters of a variant for images of three channels, from the network on the meta device."""
    # torch takes a second to load, and no other function of this file needs it.
    import torch

    from medmamba_variants.model import build_model

    with torch.device("meta"):
        model = build_model(config, num_classes=classes)
    return sum(parameter.numel() for parameter in model.parameters())


def lines(systems: Iterable[System]) -> list[str]:
    """A line for each system: name, tier, evidence, and its variant or what that waits for."""
    listed = list(systems)
    width = max((len(system.name) for system in listed), default=0)
    return [f"{each.name:{width}}  {each.tier}  {each.evidence:8}  {_variant(each)}" for each in listed]


def in_full(system: System, count: Count = parameters) -> str:
    """A system with everything that is known of it, a line for each fact."""
    config = system.config
    facts = [
        ("source", system.source),
        ("form of", system.form_of),
        ("mechanism", system.mechanism),
        ("evidence", EVIDENCE[system.evidence]),
        ("tier", f"{system.tier}, {TIERS[system.tier]}"),
        ("variant", difference(config) if config else ""),
        ("waits for", system.waits_for),
        ("deviates", system.deviates),
    ]
    if config:
        facts += [
            (
                "in a study",
                f"{system.name}: {yaml.safe_dump(config.diff(), default_flow_style=True, width=10**6).strip()}",
            ),
            ("id", config.variant_id),
            ("parameters", f"{count(config, CLASSES):,} with {CLASSES} classes"),
            ("MACs", f"{multiply_adds(config):,} for {IMAGE_SIZE}×{IMAGE_SIZE} pixels"),
        ]
    if system.published_params:
        printed = f"{system.published_params:,} with {PUBLISHED_CLASSES} classes, by {system.published_by}"
        here = f"; here {count(config, PUBLISHED_CLASSES):,}" if config else ""
        facts.append(("published", printed + here))
    told = [(name, value) for name, value in facts if value]
    return "\n".join([system.title, *(_fact(name, value) for name, value in told)])


def markdown(count: Count = parameters) -> str:
    """The page docs/systems.md: a table for each list, and the published numbers of parameters."""
    words = ", ".join(f"`{word}` {meaning}" for word, meaning in EVIDENCE.items())
    parts = [INTRODUCTION.format(evidence=words)]
    for name, title in LISTS.items():
        rows = [_row(system, count) for system in SYSTEMS.values() if system.listed == name]
        parts += [f"\n## {title[0].upper()}{title[1:]}\n", HEADER, *rows]
    parts += [PUBLISHED, *(_published(each, count) for each in SYSTEMS.values() if each.published_params)]
    return "\n".join(parts) + "\n"


def _variant(system: System) -> str:
    return difference(system.config) if system.config else _absence(system)


def _absence(system: System) -> str:
    return f"waits for {system.waits_for}" if system.waits else system.waits_for


def _fact(name: str, value: str) -> str:
    if name == "in a study":
        # One line, to be copied.
        return f"  {name:11}{value}"
    return textwrap.fill(value, 100, initial_indent=f"  {name:11}", subsequent_indent=" " * 13)


def _row(system: System, count: Count) -> str:
    config = system.config
    title = f"[{system.title}](https://github.com/{system.code})" if system.code else system.title
    cells = [
        f"`{system.name}`",
        "; ".join(part for part in (title, system.paper) if part),
        system.mechanism,
        f"`{difference(config)}`" if config else _absence(system),
        f"{count(config, CLASSES):,}" if config else "",
        _giga(multiply_adds(config)) if config else "",
        system.evidence,
        system.deviates,
    ]
    return _line(cells)


def _published(system: System, count: Count) -> str:
    assert system.published_params
    config = system.config
    here = count(config, PUBLISHED_CLASSES) if config else None
    gap = f"{here / system.published_params - 1:+.1%}" if here else ""
    shown = f"{here:,}" if here else _absence(system)
    cells = [f"`{system.name}`", f"{system.published_params:,}", system.published_by, shown, gap, system.deviates]
    return _line(cells)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _giga(macs: int) -> str:
    return f"{macs / 1e9:.3g} G"
