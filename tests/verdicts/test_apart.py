"""Answers from a process of its own are those of this one, also where it is refused or ended."""

import os
import pickle
import pickletools
import signal
import subprocess
import sys

import numpy as np
import pytest
from ledger_fixture import Design, write_ledger

from analysis.records.ledger import load_ledger, load_manifest
from analysis.verdicts.apart import Apart
from analysis.verdicts.decisions import Deciding, decide_all

DESIGN = Design(datasets=("alpha", "beta"), seeds=(0, 1), images=24)


@pytest.fixture
def study(tmp_path):
    folder = write_ledger(tmp_path, DESIGN)
    return load_ledger(folder, study=DESIGN.name), load_manifest(folder, DESIGN.name), folder


def decided(study, rng, before=lambda apart: None):
    with Apart() as apart:
        before(apart)
        return Deciding(*study, rng=rng, draws=40, ask=apart.ask).verdicts()


def test_verdicts_and_generator_are_those_of_this_process(study):
    here, there = np.random.default_rng(1), np.random.default_rng(1)
    verdicts = decide_all(*study, rng=here, draws=40)
    assert decided(study, there) == verdicts and len(verdicts) == 4
    assert here.bit_generator.state == there.bit_generator.state != np.random.default_rng(1).bit_generator.state


def test_what_is_refused_is_told(study):
    cell = DESIGN.cell_id("baseline", "beta", 1)
    (study[2] / "ledger" / "probabilities" / f"{cell}.npz").write_bytes(b"torn")
    with pytest.raises(ValueError, match=rf"{cell}.npz: must be a whole npz file") as here:
        decide_all(*study, rng=np.random.default_rng(1), draws=40)
    with pytest.raises(ValueError, match=r"must be a whole npz file") as there:
        decided(study, np.random.default_rng(1))
    assert str(there.value) == str(here.value)


def test_a_process_that_was_ended_leaves_its_work_to_this_one(study):
    def end(apart):
        os.kill(apart._process.pid, signal.SIGKILL)
        apart._process.join()

    here, there = np.random.default_rng(1), np.random.default_rng(1)
    assert decided(study, there, before=end) == decide_all(*study, rng=here, draws=40)
    assert here.bit_generator.state == there.bit_generator.state


def test_it_ends_with_whoever_asks_nothing():
    with Apart() as apart:
        process = apart._process
    assert process.exitcode == 0
    code = (
        "import os, signal; from analysis.verdicts.apart import Apart; apart = Apart().__enter__();"
        "print(apart._process.pid, flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    # What a process that was ended has left behind would hold its output open.
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == -signal.SIGKILL and run.stdout.strip().isdigit()


def test_it_needs_no_library_of_tables_or_figures(study):
    code = (
        "import sys, analysis.verdicts.apart as apart; import analysis.verdicts.images, analysis.paired.kernels;"
        "print([m for m in ('pandas', 'matplotlib', 'scipy.stats', 'scipy.optimize') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"
    asked = []
    Deciding(*study, rng=np.random.default_rng(1), ask=lambda *given: asked.extend(given) or ())
    # What is sent, too, is made of what that process has.
    names = {module for module in pickle_modules(asked) if module.startswith("analysis")}
    assert names == {"analysis.verdicts.images", "analysis.verdicts.pairs"}


def pickle_modules(value):
    """The modules that whoever reads a pickle of this value has to import."""
    strings, found = [], set()
    for opcode, argument, _ in pickletools.genops(pickle.dumps(value)):
        if isinstance(argument, str):
            strings.append(argument)
        if opcode.name == "STACK_GLOBAL":
            found.update(strings[-2:-1])
    return found
