"""Images mapped from a file against the same images held in memory: training throughput, and memory for a large set.

    python benchmarks/data.py                     # some minutes, two threads
    python benchmarks/data.py --images 2000 --seconds 2 --large 3000 --steps 2 --out small.json     # seconds

Throughput: passes of training steps of `nano` (28 pixels, batch 32) over the same images in the same order, held and
mapped, in turns in one process; the ratio is the median of the ratios turn by turn. Memory: the peak of a process that
maps a set of 224 pixels in colour, takes its mean and deviation over some thousand images, and trains steps on batches
from all over it. The file of that set is a hole, which takes no disk and is read like any other.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

# Python looks for modules beside the script first, and there `analysis` is another script.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.machine import RESULTS, write_results  # noqa: E402
from benchmarks.turns import take_turns, typical_ratio  # noqa: E402
from medmamba_variants.config import PRESETS  # noqa: E402
from medmamba_variants.model import build_model  # noqa: E402
from study.data.lying import mapped  # noqa: E402
from study.declaration.recipe import Recipe  # noqa: E402
from study.training.augment import augment  # noqa: E402
from study.training.images import Images, MappedImages, Normaliser, on_device  # noqa: E402

BATCH, CLASSES = 32, 9
SMALL, LARGE = 28, 224
# Images of which the large set's mean and deviation are taken here: all of them take as long as they take to read.
SAMPLED = 4096
# Targets: at least so much of the throughput, at most so many bytes.
WANTED_RATIO, WANTED_BYTES = 0.9, 4e9


def steps(split: Images | MappedImages, normalise: Normaliser, count: int | None, channels: int) -> Callable[[], None]:
    """A function that trains over a split once, or for so many steps, always in the same order."""
    torch.manual_seed(0)
    model = build_model(PRESETS["nano"], num_classes=CLASSES, in_channels=channels)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    changes = torch.Generator().manual_seed(0)

    def train() -> None:
        order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
        for places, pixels in islice(split.gathered(order.split(BATCH)), count):
            images = augment(normalise(pixels), Recipe(), changes)
            loss = F.cross_entropy(model(images), split.labels[places])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return train


def throughput(images: int, seconds: float) -> dict[str, float]:
    """Images a second, held and mapped, and their ratio."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images"
        shape = (images, SMALL, SMALL, 3)
        path.write_bytes(rng.integers(0, 256, shape, dtype=np.uint8).tobytes())
        labels = rng.integers(0, CLASSES, images)
        stored = mapped(path, 0, shape)
        held = on_device(np.array(stored), labels, Recipe(), torch.device("cpu"))
        splits = {"held": held, "mapped": MappedImages(stored, (SMALL, SMALL), held.labels)}
        passes = {name: steps(split, Normaliser(held), None, channels=3) for name, split in splits.items()}
        busy: dict[str, list[float]] = {name: [] for name in passes}

        def timed(name: str) -> None:
            start = time.process_time()
            passes[name]()
            busy[name].append(time.process_time() - start)

        turns = take_turns({name: partial(timed, name) for name in passes}, seconds)
    typical = {name: images / float(np.median(taken)) for name, taken in turns.items()}
    ratios = {"ratio": typical_ratio(turns["held"], turns["mapped"])}
    # The first pass of each is not counted in turns, nor here.
    ratios["processor_ratio"] = typical_ratio(busy["held"][1:], busy["mapped"][1:])
    return {**typical, **ratios, "turns": len(turns["mapped"])}


def memory(images: int, count: int) -> dict[str, float]:
    """Peak bytes of this process while it trains on a large mapped set, and the bytes of the set."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "images"
        shape = (images, LARGE, LARGE, 3)
        with path.open("wb") as file:
            file.truncate(int(np.prod(shape)))
        stored = mapped(path, 0, shape)
        labels = torch.zeros(images, dtype=torch.int64)
        split = MappedImages(stored, (LARGE, LARGE), labels)
        sampled = MappedImages(stored[: min(images, SAMPLED)], (LARGE, LARGE), labels[:SAMPLED])
        steps(split, Normaliser(sampled), count, channels=3)()
        for pixels in islice(split.blocks(256), 4):
            assert pixels.shape[1:] == shape[1:]
        return {"bytes": float(np.prod(shape)), "peak": _peak()}


def _peak() -> float:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((float(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000, help="images of 28 pixels whose throughput is taken")
    parser.add_argument("--seconds", type=float, default=60.0, help="time for the turns of the mapped ones")
    parser.add_argument("--large", type=int, default=100_000, help="images of 224 pixels")
    parser.add_argument("--steps", type=int, default=20, help="training steps on them")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS / "data.json")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.memory_alone:
        print(json.dumps(memory(given.large, given.steps)))
        return
    speed = throughput(given.images, given.seconds)
    print(f"nano, {SMALL} pixels, {given.images:,} images, batch {BATCH}:")
    print(f"  held {speed['held']:,.0f} images/s, mapped {speed['mapped']:,.0f} images/s")
    print(f"  mapped / held: × {speed['ratio']:.3f} (wanted: ≥ {WANTED_RATIO:g})")
    print(f"  the same by processor time, which others on the machine do not change: × {speed['processor_ratio']:.3f}")
    command = [sys.executable, __file__, "--memory-alone", "--large", str(given.large), "--steps", str(given.steps)]
    run = subprocess.run([*command, "--threads", str(given.threads)], capture_output=True, text=True, check=True)
    room = json.loads(run.stdout.splitlines()[-1])
    print(f"{given.large:,} images of {LARGE} pixels, {room['bytes'] / 1e9:.1f} GB:")
    print(f"  peak of the process {room['peak'] / 1e9:.2f} GB (wanted: ≤ {WANTED_BYTES / 1e9:g} GB)")
    write_results(given.out, {"images": given.images, "throughput": speed, "large": given.large, "memory": room})


if __name__ == "__main__":
    main()
