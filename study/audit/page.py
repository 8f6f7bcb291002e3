"""The page of an audit: what was found in each data set, with contact sheets of the pairs and images found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis import audits
from analysis.audits import Remark, remarks
from analysis.rendering.canvas import render
from analysis.rendering.html import Html, definitions, element, note, paragraph
from analysis.rendering.marks import Picture, file_name
from analysis.rendering.tables import Table
from analysis.report.section import Part, make_part
from analysis.words import counted
from study.audit.alike import LIKELY, MOST_BITS, SURE
from study.audit.pixels import BORDER
from study.audit.pool import combinations
from study.audit.sheets import LookUp, pair_sheet, single_sheet
from study.data.protocol import SPLITS, Dataset

Audited = tuple[Dataset, Mapping[str, Any]]

# Kinds of pairs: the title of their sheet, and what it shows.
PAIRS = {
    "test": ("Test images that stand in train or val", "Left the image of test, right the earlier one."),
    "val": ("Val images that stand in train", "Left the image of val, right that of train."),
    "test turned": ("Test images with a turned copy in train or val", "Left the image of test, right the copy."),
    "val turned": ("Val images with a turned copy in train", "Left the image of val, right the copy."),
    "conflicts": ("Look-alikes with two labels", "One of the two labels must be wrong."),
    "conflicts turned": ("Turned copies with two labels", "Right only where a label names a side."),
    "within": ("Look-alikes of one split, in no common group", "They are not independent."),
}
# Kinds of single images, in the order of the page.
SINGLES = {
    "constant": ("Images without any contrast", "All pixels are equal."),
    "faint": ("Images of hardly any contrast", "Their pixels vary by less than 2 grey levels."),
    "saturated": ("Saturated images", "At least half of the pixels are at the top."),
    "black": ("Black images", "At least 98 % of the pixels are black."),
    "borders": (
        "Images with uniform bands at their edges",
        f"The widest ones, of those where bands take at least {100 * BORDER:g} % of the area: a border, or plain "
        "background.",
    ),
}
METHOD = (
    f"Two images are alike where their grey copies of 32 × 32 pixels have a correlation of at least {SURE:g}, or of at "
    f"least {LIKELY:g} with at most {MOST_BITS} of 63 bits of a perceptual hash apart. Neither sees brightness or "
    "contrast; a resized or recompressed copy stays alike. Every image was also compared with mirrored ones and ones "
    "turned by 90° and 180°.",
    "What is not seen: two different pictures of one patient, crops, copies turned by other angles. Only groups, one "
    "number a patient, keep those apart. In sets whose images differ little from each other, such as aligned scans, "
    "two patients may look alike: look at the pairs.",
    "The linear model is a multinomial logistic regression on 16 × 16 pixels, its penalty chosen on val. What it reads "
    "is no fault, but a network must beat it.",
)


def page(audited: Sequence[Audited], shared: Sequence[Mapping[str, Any]]) -> tuple[str, str, Html, list[Part]]:
    """The page of some audits: its title, a description, its head and its sections. shared: pictures of two sets."""
    parts = [_section(dataset, found) for dataset, found in audited]
    if shared:
        parts.append(_shared_section({dataset.info.name: dataset for dataset, _ in audited}, shared))
    method = make_part("method", "How look-alikes are found", [paragraph(text) for text in METHOD])
    names = [dataset.info.name for dataset, _ in audited]
    title = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
    return f"{title}: audit", f"Audit of {', '.join(names)}", _header(title, audited), [*parts, method]


def _header(title: str, audited: Sequence[Audited]) -> Html:
    faulty = {dataset.info.name: sum(remark.fault for remark in remarks(found)) for dataset, found in audited}
    items = {
        "data sets": f"{len(audited):,}",
        "images": f"{sum(sum(found['n'].values()) for _, found in audited):,}",
        "faults": ", ".join(f"{name} {count}" for name, count in faulty.items() if count) or "none",
    }
    return element(
        "header",
        {},
        element("p", {"class": "eyebrow"}, "Audit"),
        element("h1", {}, title),
        element("p", {"class": "question"}, "Does a picture stand in two splits, or bear two labels?"),
        definitions(items),
    )


def _section(dataset: Dataset, found: Mapping[str, Any]) -> Part:
    name = file_name(dataset.info.name)
    said = remarks(found)
    height, width = found["image_size"]
    about = {
        "modality": found["modality"],
        "images": f"{sum(found['n'].values()):,}, {height}×{width}, {counted(found['channels'], 'channel')}",
        "groups": ", ".join(f"{split} {count:,}" for split, count in found["groups"]["counts"].items()) or "not named",
        "fingerprint": found["fingerprint"],
    }
    blocks: list[str] = [definitions(about)]
    if not any(remark.fault for remark in said):
        blocks.append(paragraph("Nothing stands in two splits, and no picture bears two labels."))
    blocks.append(element("ol", {"class": "verdicts"}, *[_item(remark) for remark in said]))
    if not found["groups"]["counts"]:
        blocks.append(note("No groups are named: whether one patient stands in two splits cannot be told."))
    return make_part(
        name,
        dataset.info.name,
        blocks,
        _pictures(name, dataset, found),
        [_class_table(name, found)],
        [table for table in [_pair_table(name, found)] if table is not None],
    )


def _shared_section(datasets: Mapping[str, Dataset], pairs: Sequence[Mapping[str, Any]]) -> Part:
    keys = {name: dataset.info.source_key for name, dataset in datasets.items()}
    items, sheets = [], []
    for pair in pairs:
        one, other = pair["sets"]
        items.append(_item(audits.shared(pair, keys)))
        title = f"Pictures of {one} that stand in {other}"
        looks = _image_of(datasets[one]), _image_of(datasets[other])
        name = file_name(f"{one}_{other}")
        sheets.append(pair_sheet(name, title, f"Left {one}, right {other}.", pair["examples"], pair["pairs"], looks))
    blocks = [element("ol", {"class": "verdicts"}, *items)]
    return make_part("shared", "Pictures that sets share", blocks, [render(sheet) for sheet in sheets])


def _item(remark: Remark) -> Html:
    sign = element("span", {"class": "sign", "aria-hidden": "true"}, "!" if remark.fault else "·")
    text = remark.text[0].upper() + remark.text[1:] + "."
    said: list[str] = [element("span", {"class": "outcome"}, "fault")] if remark.fault else []
    return element("li", {}, sign, *said, element("span", {"class": "claim" if remark.fault else "numbers"}, text))


def _pictures(name: str, dataset: Dataset, found: Mapping[str, Any]) -> list[Picture]:
    image = _image_of(dataset)
    alike = found["alike"]
    drawings = [
        pair_sheet(
            f"{name}_{kind.replace(' ', '_')}",
            title,
            text,
            alike["examples"][kind],
            alike["pairs"][kind],
            (image, image),
        )
        for kind, (title, text) in PAIRS.items()
        if alike["examples"][kind]
    ]
    rows = {str(image_id): row for row, image_id in enumerate(np.concatenate([dataset.splits[s].ids for s in SPLITS]))}
    titles, labels = combinations(
        dataset.info.classes, np.concatenate([dataset.splits[split].labels for split in SPLITS])
    )
    for kind, (title, text) in SINGLES.items():
        odd = found["looks"][kind]
        if odd["names"]:
            images = [(rows[each], each, titles[labels[rows[each]]]) for each in odd["names"]]
            drawings.append(single_sheet(f"{name}_{kind}", title, text, images, odd["count"], image))
    return [render(drawing) for drawing in drawings]


def _image_of(dataset: Dataset) -> LookUp:
    """A function that looks up an image of a data set by its row."""
    starts = np.cumsum([0, *(len(dataset.splits[split]) for split in SPLITS)])

    def image(row: int) -> np.ndarray:
        place = int(np.searchsorted(starts, row, side="right")) - 1
        pixels = dataset.splits[SPLITS[place]].images[row - starts[place]]
        return pixels[..., 0] if pixels.shape[-1] == 1 else pixels

    return image


def _class_table(name: str, found: Mapping[str, Any]) -> Table:
    data = pd.DataFrame(
        [[title, *(found["class_counts"][split][title] for split in SPLITS)] for title in found["classes"]],
        columns=["class", *SPLITS],
    )
    total = ["all", *(found["n"][split] for split in SPLITS)]
    rows = [[str(row[0]), *(f"{count:,}" for count in row[1:])] for row in [*data.to_numpy().tolist(), total]]
    return Table(f"{name}_classes", "Images by class and split", "", ["class", *SPLITS], rows, data)


def _pair_table(name: str, found: Mapping[str, Any]) -> Table | None:
    """The pairs that are listed by name; None where there are none."""
    listed = []
    for kind, examples in found["alike"]["examples"].items():
        for pair in examples:
            numbers = [pair["correlation"], pair["bits"]]
            names = [text for both in zip(pair["images"], pair["classes"]) for text in both]
            listed.append([kind, *names, "equal" if pair["equal"] else pair["turn"], *numbers])
    if not listed:
        return None
    columns = ["kind", "image", "class", "other_image", "other_class", "how", "correlation", "bits"]
    rows = [[*(str(value) for value in row[:6]), f"{row[6]:.4f}", str(row[7])] for row in listed]
    heads = ["kind", "image", "class", "look-alike", "its class", "how", "correlation", "bits apart"]
    caption = "The first pairs of each kind: correlation of grey copies of 32 × 32 pixels, and bits of 63 in the hash."
    data = pd.DataFrame(listed, columns=columns)
    return Table(f"{name}_pairs", "Pairs of look-alikes", caption, heads, rows, data, frozenset(range(6)))
