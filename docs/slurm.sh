#!/bin/bash
# A study in parts on a SLURM cluster: every task runs one part into a store of its own, then all are merged.
#
#   sbatch --ntasks=8 --cpus-per-task=2 --time=12:00:00 docs/slurm.sh FILE STORE [OPTIONS OF study.launch]
#
# STORE is a folder that all nodes see. Submitted again it does only what is missing. PYTHON names another interpreter.
#SBATCH --job-name=medmamba-study
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: sbatch --ntasks=N docs/slurm.sh FILE STORE [OPTIONS OF study.launch]" >&2
    exit 2
fi
export FILE=$1 STORE=$2
shift 2
export PYTHON=${PYTHON:-.venv/bin/python}
export PARTS=${SLURM_NTASKS:?must be set by sbatch --ntasks=N}

# A cell that fails ends its part with 1; the other parts are worth merging all the same.
status=0
srun --kill-on-bad-exit=0 bash -c '
    exec "$PYTHON" -m study.launch "$FILE" --shard "$((SLURM_PROCID + 1))/$PARTS" \
        --store "$STORE/part-$((SLURM_PROCID + 1))-of-$PARTS" --executor inline \
        --threads "${SLURM_CPUS_PER_TASK:-1}" --tracking-uri none "$@"
' bash "$@" || status=$?

"$PYTHON" -m study.merge "$STORE"/part-*-of-"$PARTS" --into "$STORE/merged"
echo "next: $PYTHON -m study.launch $FILE $* --store $STORE/merged (verdicts and page; it runs what is missing)"
exit "$status"
