"""Short audits of a study's data sets, made once for each content and kept in the store."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

from analysis.json_file import read_object
from study.audit.between import between
from study.audit.findings import VERSION, short_audit
from study.audit.pool import Pool, pool_of, thinned
from study.data import Dataset, open_source
from study.declaration.cells import DataRef
from study.store.ledger import plain_json, whole_file

FOLDER = "ledger/audits"
# Images of a set, evenly spaced, that are compared with those of another.
COMPARED = 6_000
# Bytes of pixels whose audit takes a quarter of a minute: too long for what is not kept.
LARGE = 4 << 30


def short_audits(refs: Mapping[str, DataRef], store: Path, keep: bool) -> dict[str, Any]:
    """What short audits of data sets say, as JSON values: `sets` by name, and pictures that sets of two sources
    share, `shared`.

    From the store, where it has them. keep: whether new ones are kept there; where not, a large set waits for a launch,
    and says so. A kept one belongs to a content and a kind of source, since other kinds name their images otherwise.
    """
    pools: dict[str, Pool] = {}

    def load(name: str) -> Dataset:
        return open_source(refs[name].source).load(refs[name].name)

    def thin(name: str) -> Pool:
        if name not in pools:
            pools[name] = pool_of(load(name), COMPARED)
        return pools[name]

    def one(name: str) -> dict[str, Any]:
        dataset = load(name)
        if not keep and sum(split.images.nbytes for split in dataset.splits.values()) > LARGE:
            return {"waits": True}
        pool = pool_of(dataset)
        pools[name] = thinned(pool, COMPARED)
        return short_audit(dataset, pool)

    def two(name: str, other: str) -> dict[str, Any]:
        return {"version": VERSION, **between(name, other, thin(name), thin(other), listed=2)}

    def kept(names: tuple[str, ...], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        keys = [f"{refs[name].fingerprint}-{refs[name].source['kind']}" for name in names]
        return _kept(store / FOLDER / f"{'-'.join(keys)}.json", make, keep)

    sets = {name: {**kept((name,), partial(one, name)), "name": name} for name in refs}
    audited = sorted(name for name in refs if "waits" not in sets[name])
    # What is one source counts once, whatever it shares.
    pairs = [pair for pair in combinations(audited, 2) if refs[pair[0]].source_key != refs[pair[1]].source_key]
    shared = [{**kept(pair, partial(two, *pair)), "sets": list(pair)} for pair in pairs]
    return {"sets": sets, "shared": [pair for pair in shared if pair["pairs"]]}


def _kept(path: Path, make: Callable[[], dict[str, Any]], keep: bool) -> dict[str, Any]:
    """The findings in a file, or new ones, which go there where they shall be kept."""
    if path.is_file():
        # One that cannot be read is made anew, as is one of another version.
        with suppress(ValueError):
            found = read_object(path, "an audit")
            if found.get("version") == VERSION:
                return found
    found = plain_json(make(), "audit")
    if keep:
        with whole_file(path) as file:
            file.write(json.dumps(found, ensure_ascii=False).encode() + b"\n")
    return found
