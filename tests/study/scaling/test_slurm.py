"""The SLURM script: its syntax, and what it runs where `srun` is a stand-in that starts every task in turn."""

import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = ROOT / "docs" / "slurm.sh"
SRUN = """\
#!/bin/bash
[ "$1" = --kill-on-bad-exit=0 ] || exit 9
shift
worst=0
for ((task = 0; task < SLURM_NTASKS; task++)); do
    SLURM_PROCID=$task "$@" || worst=$?
done
exit $worst
"""
# Writes each word of its command, and fails in the second part.
PYTHON = """\
#!/bin/bash
{ printf '%s|' "$@"; echo; } >> "$HERE/told"
case "$*" in *--shard\\ 2/3*) exit 1 ;; esac
"""


def run(tmp_path, *arguments, **environment):
    for name, text in {"srun": SRUN, "python": PYTHON}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HERE": str(tmp_path), "PYTHON": "python"}
    return subprocess.run(
        ["bash", SCRIPT, *arguments], capture_output=True, text=True, env={**path, **environment}, cwd=tmp_path
    )


def test_its_syntax_is_right():
    assert subprocess.run(["bash", "-n", SCRIPT]).returncode == 0
    assert os.access(SCRIPT, os.X_OK)


def test_every_task_runs_its_part_and_all_are_merged(tmp_path):
    store = tmp_path / "the store"
    for number in (1, 2, 3):
        (store / f"part-{number}-of-3").mkdir(parents=True)
    (store / "part-1-of-4").mkdir()
    ended = run(tmp_path, "a study.yaml", str(store), "--seeds", "0,1", SLURM_NTASKS="3", SLURM_CPUS_PER_TASK="2")
    assert ended.returncode == 1, "a part with a failed cell"
    told = [line.rstrip("|").split("|") for line in (tmp_path / "told").read_text().splitlines()]
    parts = [f"{store}/part-{number}-of-3" for number in (1, 2, 3)]
    for number, (words, part) in enumerate(zip(told[:3], parts, strict=True), start=1):
        assert words[:5] == ["-m", "study.launch", "a study.yaml", "--shard", f"{number}/3"]
        assert words[5:7] == ["--store", part] and words[-2:] == ["--seeds", "0,1"]
        assert words[words.index("--threads") + 1] == "2"
    assert told[3:] == [["-m", "study.merge", *parts, "--into", f"{store}/merged"]]
    assert f"--store {store}/merged" in ended.stdout


def test_a_wrong_call_is_told(tmp_path):
    ended = run(tmp_path, "study.yaml")
    assert ended.returncode == 2 and ended.stderr.startswith("usage: sbatch")
    ended = run(tmp_path, "study.yaml", "store")
    assert ended.returncode != 0 and "must be set by sbatch --ntasks=N" in ended.stderr
