"""Training steps of two checkouts of this project in turns, each in a process of its own."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

# A process of a checkout: for each line on its standard input it takes steps and prints [wall seconds, CPU seconds] of
# a step as the study takes it, the same without clipping and optimiser, and the losses' last.
WORKER = """
import json, sys, time
from functools import partial
from importlib import import_module

import torch
from medmamba_variants.config import PRESETS
from medmamba_variants.model import build_model

def place(name, *modules):
    for module in modules:
        try:
            return getattr(import_module(module), name)
        except ImportError:
            pass
    raise SystemExit(f"no {name} in {modules}")

preset, pixels, batch, threads, steps = sys.argv[1], *map(int, sys.argv[2:])
torch.set_num_threads(threads)
Recipe = place("Recipe", "study.declaration.recipe", "study.recipe", "study.cells")
recipe = Recipe()
make_optimizer = place("_optimizer", "study.training.loop", "study.train")
try:
    clip = import_module("study.training.clipping").clip_gradients
    import_module("study.training.allocator").keep_freed_memory()
except ImportError:
    clip = torch.nn.utils.clip_grad_norm_
torch.manual_seed(0)
model = build_model(PRESETS[preset], num_classes=6, in_channels=3).train()
optimizer = make_optimizer(model, recipe)
images, labels = torch.randn(batch, 3, pixels, pixels), torch.randint(6, (batch,))

def backward():
    optimizer.zero_grad(set_to_none=True)
    loss = torch.nn.functional.cross_entropy(model(images), labels, label_smoothing=recipe.label_smoothing)
    loss.backward()
    return loss

def step():
    loss = backward()
    clip(list(model.parameters()), recipe.clip_grad_norm)
    optimizer.step()
    return loss

def taken(function):
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(steps):
        loss = function()
    return [(time.perf_counter() - wall) / steps, (time.process_time() - cpu) / steps], float(loss.detach())

print("ready", flush=True)
for _ in sys.stdin:
    # Caches hold what the other process left there.
    backward()
    whole, loss = taken(step)
    part, _ = taken(backward)
    print(json.dumps([*whole, *part, loss]), flush=True)
"""
COLUMNS = ("step_seconds", "step_cpu_seconds", "backward_seconds", "backward_cpu_seconds")


class Stepper:
    """A process that trains a network of a checkout when asked to, and waits otherwise."""

    def __init__(self, root: Path, preset: str, pixels: int, batch: int, threads: int, steps: int) -> None:
        # Threads of a process that waits must not run in circles while the other is timed.
        environment = {**os.environ, "PYTHONPATH": str(root), "OMP_WAIT_POLICY": "passive"}
        command = [sys.executable, "-c", WORKER, preset, *map(str, (pixels, batch, threads, steps))]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=root, env=environment)
        self._answer()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"a process of {self.process.args} ended with status {self.process.wait()}")
        return line

    def turn(self) -> list[float]:
        """Seconds of a step, by COLUMNS, and the loss at the end of the turn."""
        assert self.process.stdin is not None
        print("go", file=self.process.stdin, flush=True)
        taken: list[float] = json.loads(self._answer())
        return taken

    def end(self) -> None:
        """Ends the process."""
        self.process.communicate()


def in_turns(
    roots: tuple[Path, Path], preset: str, pixels: int, batch: int, threads: int, turns: int, steps: int
) -> dict[str, Any]:
    """Steps of two checkouts in turns, which each of them begins as often: medians, and medians of the turns' ratios.

    Ratios are the first's to the second's. Turns take `steps` steps; two more of each warm up.
    """
    peers = [Stepper(root, preset, pixels, batch, threads, steps) for root in roots]
    try:
        for _ in range(2):
            warm = [peer.turn() for peer in peers]
        rows: list[list[list[float]]] = []
        for number in range(turns):
            order = (0, 1) if number % 2 else (1, 0)
            pair = {index: peers[index].turn() for index in order}
            rows.append([pair[0], pair[1]])
    finally:
        for peer in peers:
            peer.end()
    result: dict[str, Any] = {"network": f"{preset} {pixels}×{pixels}", "batch": batch, "threads": threads}
    result |= {"turns": turns, "steps_a_turn": steps, "losses": [one[-1] for one in warm]}
    for column, name in enumerate(COLUMNS):
        ours, theirs = ([row[side][column] for row in rows] for side in (0, 1))
        ratios = sorted(mine / other for mine, other in zip(ours, theirs))
        result[name] = {
            "ours": statistics.median(ours),
            "theirs": statistics.median(theirs),
            "ratio": statistics.median(ratios),
            "middle_half": [ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]],
        }
    return result
