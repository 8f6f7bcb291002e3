"""What an audit found in a data set, in sentences: for the terminal, a launch and a page alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from analysis.words import counted, ends, listed, percent, share

SPLITS = ("train", "val", "test")
EARLIER = {"test": "train or val", "val": "train"}


@dataclass(frozen=True)
class Remark:
    """One thing that an audit found: a fault makes results wrong, anything else is to be known."""

    text: str
    fault: bool


@dataclass(frozen=True)
class Notice:
    """A fault of one data set, or of two together; or, no fault, what an audit could not look at."""

    sets: tuple[str, ...]
    text: str
    fault: bool

    @property
    def line(self) -> str:
        """The notice with its sets, for a terminal."""
        return f"{' and '.join(self.sets)}: {self.text}"


def faults(found: Mapping[str, Any]) -> list[str]:
    """The sentences on what makes results on a data set wrong; none where nothing was found."""
    return [remark.text for remark in remarks(found) if remark.fault]


def notices(audits: Mapping[str, Any], sources: Mapping[str, str]) -> list[Notice]:
    """What a launch tells of its data sets: audits as its manifest keeps them. sources: the source of each set."""
    said = []
    for name, found in audits.get("sets", {}).items():
        if found.get("waits"):
            said.append(Notice((name,), "so large that its first launch audits it, not a dry run", False))
            continue
        said += [Notice((name,), text, True) for text in faults(found)]
        said += [Notice((name,), text, False) for text in limits(found["alike"])]
    for pair in audits.get("shared", []):
        one, other = pair["sets"]
        remark = shared(pair, sources)
        if remark.fault:
            said.append(Notice((one, other), remark.text, True))
    return said


def shared(pair: Mapping[str, Any], sources: Mapping[str, str]) -> Remark:
    """The remark on two data sets that show the same pictures: a fault unless they count as one source."""
    (one, other), (images, others), (total, total_other) = pair["sets"], pair["images"], pair["of"]
    name, other_name = pair["examples"][0]["images"]
    text = (
        f"{images:,} of {total:,} and {others:,} of {counted(total_other, 'image')} show the same pictures, such as "
        f"{one} {name} and {other} {other_name}"
    )
    if sources.get(one, one) == sources.get(other, other):
        return Remark(f"{text}; they count as one source", False)
    return Remark(f"{text}, so they are one source, which `sources` can say", True)


def remarks(found: Mapping[str, Any]) -> list[Remark]:
    """All sentences on an audit's findings, as `study.audit.findings.audit` gives them; faults first."""
    said = [*_alike(found["alike"]), *_groups(found), *(Remark(note, False) for note in found.get("notes", ()))]
    if found.get("looks"):
        said += _looks(found["looks"], sum(found["n"].values()), found["classes"])
    if found.get("files"):
        said += _files(found["files"])
    if found.get("probe"):
        said.append(_probe(found["probe"]))
    return sorted(said, key=lambda remark: not remark.fault)


def _alike(alike: Mapping[str, Any]) -> list[Remark]:
    said, examples = [], alike["examples"]
    for split, seen in alike["seen"].items():
        where = EARLIER[split]
        if seen["images"]:
            what = f"a look-alike in {where}"
            if seen["equal"] == seen["images"]:
                what = f"equal pixels in {where}"
            elif seen["equal"]:
                what += f" ({seen['equal']:,} with equal pixels)"
            text = f"{seen['images']:,} of {counted(seen['of'], f'{split} image')} {_have(seen['images'])} {what}"
            said.append(Remark(f"{text}: {_named(examples[split])}", True))
        if seen["turned"]:
            more = "more " if seen["images"] else ""
            text = (
                f"{seen['turned']:,} {more}of {counted(seen['of'], f'{split} image')} {_have(seen['turned'])} a "
                f"mirrored or turned copy in {where}: {_named(examples[f'{split} turned'])}"
            )
            said.append(Remark(text, True))
    conflicts = alike["conflicts"]
    if conflicts["pairs"]:
        equal = f" ({conflicts['equal']:,} with equal pixels)" if conflicts["equal"] else ""
        text = f"{counted(conflicts['pairs'], 'pair')} of look-alikes "
        said.append(Remark(f"{text}with two labels{equal}: {_named(examples['conflicts'], labels=True)}", True))
    if conflicts["turned"]:
        text = (
            f"{counted(conflicts['turned'], 'pair')} of mirrored or turned copies with two labels, which is right only "
            f"where a label names a side: {_named(examples['conflicts turned'], labels=True)}"
        )
        said.append(Remark(text, False))
    within = [f"{split} {count:,}" for split, count in alike["within"].items() if count]
    if within:
        text = (
            f"images that share no group with a look-alike in their own split: {listed(within)}; intervals that take "
            f"them for independent are too narrow: {_named(examples['within'])}"
        )
        said.append(Remark(text, False))
    said += [Remark(text, False) for text in limits(alike)]
    return said


def limits(alike: Mapping[str, Any]) -> list[str]:
    """The sentences on look-alikes that were not sought, or not listed; none where all were."""
    said = []
    if alike["compared"] < alike["images"]:
        said.append(
            f"look-alikes were sought for {alike['compared']:,} val and test images, evenly spaced, among all "
            f"{alike['images']:,}, and equal pixels among all"
        )
    if alike["not_sought"]:
        said.append(f"copies {listed(alike['not_sought'])} were not sought: python -m study.audit does")
    if not alike["complete"]:
        said.append("images differ so little from each other that not all look-alikes could be listed")
    return said


def _groups(found: Mapping[str, Any]) -> list[Remark]:
    shared = found["groups"]["shared"]
    if not shared["count"]:
        return []
    text = (
        f"{counted(shared['count'], 'group')} (patients, lesions) {'stands' if shared['count'] == 1 else 'stand'} in "
        f"two splits: {listed(shared['names'][:2])}"
    )
    return [Remark(text, True)]


def _looks(looks: Mapping[str, Any], total: int, classes: list[str]) -> list[Remark]:
    said = []
    for kind, words in (
        ("constant", "without any contrast"),
        ("faint", "of hardly any contrast (a standard deviation below 2 grey levels)"),
        ("saturated", "saturated in half of their pixels"),
        ("black", "black in 98 % of their pixels"),
    ):
        if count := looks[kind]["count"]:
            said.append(Remark(f"{counted(count, 'image')} {words}: {listed(looks[kind]['names'][:2])}", False))
    borders, colour = looks["borders"], looks["colour"]
    if borders["count"]:
        text = (
            f"{borders['count']:,} of {counted(total, 'image')} {_have(borders['count'])} uniform bands at their edges "
            f"({percent(borders['area'])} of the area): {listed(borders['names'][:2])}"
        )
        said.append(Remark(text + _telling(borders), False))
    if 0 < colour["grey"] < total:
        verb = "is" if colour["grey"] == 1 else "are"
        text = f"{colour['grey']:,} of {counted(total, 'image')} {verb} grey among coloured ones"
        said.append(Remark(text + _telling(colour), False))
    elif colour["grey"]:
        said.append(Remark("all images are grey, stored as colour", False))
    return said


def _telling(found: Mapping[str, Any], what: str = "") -> str:
    """What follows where rates of a property, `what`, tell classes apart."""
    if not found["tell"]:
        return ""
    rates = sorted(found["by_class"].items(), key=lambda item: -item[1])
    (most, high), (least, low) = rates[0], rates[-1]
    return f"; they tell classes apart: {percent(high)} of {most}, {percent(low)} of {least}{what}"


def _files(files: Mapping[str, Any]) -> list[Remark]:
    said = []
    for kind, words in (("sizes", "sizes"), ("modes", "kinds of pixels")):
        found = files[kind]
        if found["kinds"] > 1:
            counts = [f"{name} ({count:,})" for name, count in found["counts"].items()]
            text = f"{counted(files['count'], 'file')} of {found['kinds']:,} {words}: {listed(counts, 4)}"
            said.append(Remark(text + _telling(found, f" are {next(iter(found['counts']))}"), False))
    return said


def _probe(probe: Mapping[str, Any]) -> Remark:
    interval = f" {ends(*probe['interval'])}" if probe["interval"] else ""
    text = (
        f"a linear model on 16×16 pixels has a balanced accuracy of {share(probe['value'])}{interval} on test (chance "
        f"{share(probe['chance'])}; 95 % over {probe['over']}, n = {probe['n']:,})"
    )
    if probe["too_easy"]:
        text += ": too easy a set to tell networks apart"
    elif probe["at_chance"]:
        text += ": no better than chance"
    return Remark(text, False)


def _named(examples: list[Mapping[str, Any]], labels: bool = False) -> str:
    """The first pair in words."""
    if not examples:
        return "none named"
    pair = examples[0]
    one, other = (
        f"{name} ({title})" if labels else name for name, title in zip(pair["images"], pair["classes"], strict=True)
    )
    turn = "" if pair["turn"] == "as it is" else f" ({pair['turn']})"
    return f"{one} and {other}{turn}"


def _have(count: int) -> str:
    return "has" if count == 1 else "have"
