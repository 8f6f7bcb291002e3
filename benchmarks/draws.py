"""Random draws of the joint design space: how long a search takes to make variants, and whether all of them build.

    python benchmarks/draws.py                # 10,000 draws, of which each hundredth is built on the meta device, too
    python benchmarks/draws.py --draws 500 --seed 1

A draw chooses one to four branches with any mixers and shares, and a value for every axis that has an effect beside
the others: any of its names, its default, its probe, or a number within reach of the two. It is made into a variant
with its structure and the closed form of its MACs. A combination that the space itself refuses (SettingError) is
counted and drawn again; any other error ends the run. Writes benchmarks/results/draws.json.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import RESULTS, write_results

from medmamba_variants.config import PRESETS, VariantConfig
from medmamba_variants.cost import count_cost
from medmamba_variants.design.axes import AXES, DEFAULTS, parse_axis
from medmamba_variants.design.kinds import Number, OrEach, SettingError
from medmamba_variants.design.mixers import MIXERS
from medmamba_variants.design.structure import dead_axes
from medmamba_variants.macs import closed_form_macs
from medmamba_variants.model import build_model

BASE, PIXELS, CLASSES = PRESETS["nano"], 28, 6
# Seconds within which 10,000 draws should be variants, and milliseconds within which one should be a network.
LIMIT_SECONDS, LIMIT_MILLISECONDS = 60.0, 50.0
# Shares are drawn in these parts of the channels.
PARTS = 8
# Lists with an entry for each stage stay the base's; branches are drawn apart.
FIXED = ("depths", "dims", "branches")


def draw(stream: random.Random) -> dict[str, Any]:
    """A random difference from the base; it may be refused."""
    count = stream.randint(1, 4)
    cuts = sorted(stream.sample(range(1, PARTS), count - 1))
    shares = [(high - low) / PARTS for low, high in zip([0, *cuts], [*cuts, PARTS])]
    chosen: dict[str, Any] = {"branches": [(share, stream.choice(list(MIXERS))) for share in shares]}
    chosen |= {name: _value(name, stream) for name in AXES if name not in FIXED}
    values = {name: getattr(BASE, name) for name in FIXED}
    values |= {name: parse_axis(name, value) for name, value in chosen.items()}
    # What has no effect is left out, as a search leaves it out; then what hung on that has none either.
    while dropped := [name for name in dead_axes(values) if name in chosen]:
        for name in dropped:
            del chosen[name]
            values[name] = DEFAULTS[name]
    return chosen


def _value(name: str, stream: random.Random) -> Any:
    axis = AXES[name]
    kind = axis.kind.item if isinstance(axis.kind, OrEach) else axis.kind
    ends = [end for end in (axis.default, axis.probe) if isinstance(end, int | float) and not isinstance(end, bool)]
    if isinstance(kind, Number) and len(ends) == 2 and stream.random() < 0.5:
        low, high = sorted(ends)
        between = stream.uniform(low, high)
        drawn = round(between) if all(isinstance(end, int) for end in ends) else round(between, 6)
        try:
            return kind.parse(drawn)
        except SettingError:  # Between two sides of a filter there may be none.
            return axis.probe
    return stream.choice([*dict.fromkeys((*kind.names(), axis.default, axis.probe))])


def timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """The function's result, and the CPU seconds of this thread that it took."""
    start = time.thread_time()
    result = function()
    return result, time.thread_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=10_000)
    parser.add_argument("--every", type=int, default=100, help="one in so many is built and traced")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RESULTS / "draws.json")
    options = parser.parse_args()
    stream = random.Random(options.seed)
    # What torch imports when it first needs it is no part of a build.
    count_cost(BASE, image_size=PIXELS, num_classes=CLASSES)
    seconds, builds, refused, ids = 0.0, [], 0, set()
    while len(ids) < options.draws:
        chosen = draw(stream)
        try:
            config, taken = timed(lambda chosen=chosen: VariantConfig.from_dict(chosen, base=BASE))
        except SettingError:
            refused += 1
            continue
        macs, more = timed(lambda config=config: closed_form_macs(config, image_size=PIXELS, num_classes=CLASSES))
        seconds += taken + more
        if config.variant_id in ids:
            continue
        ids.add(config.variant_id)
        if len(ids) % options.every == 0:
            with torch.device("meta"):
                _, build = timed(lambda config=config: build_model(config, num_classes=CLASSES))
            builds.append(1e3 * build)
            traced = count_cost(config, image_size=PIXELS, num_classes=CLASSES).macs
            if traced != macs:
                raise SystemExit(f"the closed form must equal the traced count {traced}, got {macs} for {config!r}")
    row = {
        "draws": options.draws,
        "refused": refused,
        "seconds": seconds,
        "milliseconds_a_draw": 1e3 * seconds / options.draws,
        "built": len(builds),
        "median_build_milliseconds": statistics.median(builds) if builds else None,
        "slowest_build_milliseconds": max(builds, default=None),
    }
    print(f"{options.draws} variants with their MACs in {seconds:.1f} s ({row['milliseconds_a_draw']:.2f} ms each)")
    print(f"{refused} combinations refused by the space; limit {LIMIT_SECONDS:.0f} s for 10,000")
    if builds:
        slowest = row["slowest_build_milliseconds"]
        print(f"{len(builds)} built: median {statistics.median(builds):.1f} ms, slowest {slowest:.1f} ms", end="")
        print(f"; limit {LIMIT_MILLISECONDS:.0f} ms")
    write_results(options.out, row)


if __name__ == "__main__":
    main()
