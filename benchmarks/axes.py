"""Training step of every choice of every axis beside the baseline: time, MACs, and time for each MAC.

    python benchmarks/axes.py                     # every choice; some minutes; writes benchmarks/results/axes.json
    python benchmarks/axes.py --only scan_order   # rows whose name holds these letters

The baseline is nano at 28 pixels. Choices come from the registries, so that a new one joins by itself: mixers beside
conv in branches, fusions, halvings, sets of directions, every scan order in both senses, and of other axes default and
probe. Each takes turns with the baseline; ratios are medians of the turns'. A row whose time for each MAC is more than
LIMIT times the baseline's must have its reason in REASONS; where one is missing the run ends with an error.

Sequence mixers beside a plain recurrence and the published form in chunks: benchmarks/sequence_mixers.py.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests" / "builder"))

from alive import alive
from machine import RESULTS, write_results
from turns import take_turns, typical_ratio

from medmamba_variants.config import PRESETS, VariantConfig
from medmamba_variants.cost import count_cost
from medmamba_variants.design.axes import AXES
from medmamba_variants.design.kinds import Choice, OrEach
from medmamba_variants.design.mixers import MIXERS
from medmamba_variants.design.orders import Directions
from medmamba_variants.model import build_model
from medmamba_variants.scan.directions import ORDERS

BASE, PIXELS, CLASSES = PRESETS["nano"], 28, 6
# How many times the baseline's time for a MAC a choice may take without a named reason.
LIMIT = 2.0
# How much longer than rows a scan in another order may take.
ORDER_LIMIT = 1.05
# Row → why its time for each MAC is what it is. A name that ends in "=" holds for all values of an axis.
REASONS: dict[str, str] = {
    "mixer=ssd": "a decay for every pair of a chunk's steps and head is written, and read again in the backward pass",
    "heads=": "owned by ssd, whose decays for pairs of steps take the time",
    "ssd_state=": "owned by ssd, whose decays for pairs of steps take the time, whatever the state's size",
    "dilation=": "owned by depthwise: with gaps torch's depth-wise convolution takes longer for the same few MACs",
    "mixer=deformable": "nine taps are gathered at positions of their own, and their gradients scattered",
    "mixer=morphology": "sums, maxima and minima of every tap are free by convention, and not in time",
    "mixer=fft_block": "transforms pass over complex maps, twice as large, for few multiply-adds",
    "patch_size=": "smaller maps share the fixed cost of each operation among fewer MACs",
    "channel_mixer=kan": "splines of every channel are written as maps of their own, and not counted",
    "channel_mixer=gr_kan": "rational functions of every channel take many passes over the map, and are not counted",
    "discretisation=": "all rules but Mamba's run in plain torch operations, without a kernel",
    "wavelet_levels=": "each level of the transform is sums and differences, which are not counted",
    "mixer=identity": "norms, fusion and halving take their time all the same, and this mixer has no MAC to share it",
    "mixer=depthwise": "a filter a channel reads and writes a map for few multiply-adds",
    "mixer=inception": "three filters of a quarter of the channels each read and write maps for few multiply-adds",
    "mixer=axial": "two filters a channel read and write maps for few multiply-adds",
}
# What a choice stands beside where it has no place in the baseline.
BESIDE: dict[str, dict[str, Any]] = {"cpe=both": {"channel_mixer": "mlp"}}
# Values of these axes are sizes, not choices.
SCALES = ("depths", "dims", "branches")


def choices() -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows by name, each a difference from the baseline."""
    for word in MIXERS:
        yield f"mixer={word}", {"branches": [(0.5, "conv"), (0.5, word)] if word != "conv" else [(1.0, "conv")]}
    for name, axis in AXES.items():
        if name in SCALES:
            continue
        kind = axis.kind.item if isinstance(axis.kind, OrEach) else axis.kind
        values = kind.names() if isinstance(kind, Choice | Directions) else ()
        for value in dict.fromkeys((*values, axis.probe, axis.default)):
            if value != getattr(BASE, name):
                yield f"{name}={value}", alive(name) | BESIDE.get(f"{name}={value}", {}) | {name: value}
    for order in ORDERS:
        yield f"scan_order={order}", {"scan_directions": [order, f"{order}_reverse"]}


def make_step(config: VariantConfig, batch: int) -> Callable[[], None]:
    torch.manual_seed(0)
    model = build_model(config, num_classes=CLASSES).train()
    images, labels = torch.randn(batch, 3, PIXELS, PIXELS), torch.randint(CLASSES, (batch,))

    def step() -> None:
        model.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(model(images), labels).backward()

    return step


def macs_of(config: VariantConfig) -> int:
    return count_cost(config, image_size=PIXELS, num_classes=CLASSES, in_channels=3).macs


def reason_of(name: str) -> str | None:
    """Why a row's time for each MAC is high, from its own entry or its axis's."""
    return REASONS.get(name) or REASONS.get(name.partition("=")[0] + "=")


def measured(
    name: str, difference: dict[str, Any], batch: int, seconds: float, beside: VariantConfig
) -> dict[str, Any]:
    """A row: time, MACs and time for each MAC, in turns with and relative to the network beside it."""
    config = VariantConfig.from_dict(difference, base=BASE)
    taken = take_turns({"base": make_step(beside, batch), "row": make_step(config, batch)}, seconds)
    time_ratio = typical_ratio(taken["row"], taken["base"])
    macs_ratio = macs_of(config) / macs_of(beside)
    return {
        "name": name,
        "milliseconds": 1e3 * statistics.median(taken["row"]),
        "turns": len(taken["row"]),
        "time_ratio": time_ratio,
        "macs_ratio": macs_ratio,
        "time_per_mac_ratio": time_ratio / macs_ratio,
    }


def verdict(row: dict[str, Any]) -> str:
    """What a row's line ends with: nothing, its reason, that it has none, or how its order does beside rows."""
    if row["name"].startswith("scan_order="):
        return "" if row["time_ratio"] <= ORDER_LIMIT else f"more than {ORDER_LIMIT} × rows"
    if row["time_per_mac_ratio"] <= LIMIT:
        return ""
    return reason_of(row["name"]) or "NO REASON GIVEN"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=2.0, help="time of each row")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--only", default="", help="only rows whose name holds this")
    parser.add_argument("--out", type=Path, default=RESULTS / "axes.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    known = [name for name, _ in choices()]
    stale = [name for name in REASONS if not any(row == name or row.startswith(name) for row in known)]
    if stale:
        parser.error(f"REASONS must name rows, got {', '.join(stale)}")
    rows = []
    rows_order = VariantConfig.from_dict({"scan_directions": ["rows", "rows_reverse"]}, base=BASE)
    for name, difference in choices():
        if options.only not in name:
            continue
        beside = rows_order if name.startswith("scan_order=") else BASE
        row = measured(name, difference, options.batch, options.seconds, beside)
        row["verdict"] = verdict(row)
        rows.append(row)
        print(
            f"{name:<44}{row['milliseconds']:>8.1f} ms, time × {row['time_ratio']:.2f}, MACs × {row['macs_ratio']:.2f},"
            f" time for each MAC × {row['time_per_mac_ratio']:.2f}  {row['verdict']}",
            flush=True,
        )
    write_results(options.out, {"threads": options.threads, "batch": options.batch, "rows": rows})
    missing = [row["name"] for row in rows if row["verdict"] == "NO REASON GIVEN"]
    if missing:
        raise SystemExit(
            f"a choice of more than {LIMIT} × the baseline's time for each MAC must have its reason in REASONS, "
            f"got none for {', '.join(missing)}"
        )


if __name__ == "__main__":
    main()
