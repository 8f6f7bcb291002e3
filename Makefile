# Each target sets up .venv when it is missing or when the dependencies changed.
# ARGS adds options, e.g.  make study ARGS="--data-root ~/medmnist --datasets breastmnist"

SUITABLE = import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c '$(SUITABLE)' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/.ready

.PHONY: study ui test check bench schema notebooks

# The study on built-in images, with three seeds and a short recipe: minutes on two cores.
study: $(READY)
	$(BIN)/python -m study.launch search_spaces/split_ratio.yaml --seeds 0,1,2 --set recipe.image_budget=1600 $(ARGS)

ui: $(READY)
	$(BIN)/python -m study.ui $(ARGS)

# By file, since the tests of a file share slow fixtures; in the order of tests/conftest.py, the longest first. One worker
# more than cores, at most four: many tests wait for processes of their own. ARGS="-n 0" runs them one after the other.
WORKERS = $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

test: $(READY)
	$(PYTEST)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST)

# Each benchmark is also a command of its own, with options. The last needs a CUDA GPU and says so (exit status 2).
bench: $(READY)
	$(BIN)/python benchmarks/scan_cpu.py
	$(BIN)/python benchmarks/step_cpu.py
	$(BIN)/python benchmarks/sequence_mixers.py
	$(BIN)/python benchmarks/analysis.py
	$(BIN)/python benchmarks/report.py
	$(BIN)/python benchmarks/data.py
	$(BIN)/python benchmarks/scan_gpu.py || test $$? -eq 2

# Executed copies of analysis/notebooks go to mlruns/notebooks in the store; ARGS="--store DIR" for another store.
notebooks: $(READY)
	$(BIN)/python -m analysis.run_notebooks $(ARGS)

# After a change of an axis, a setting or a study: updates the schema that editors use for completion, and the pages
# of axes and studies.
schema: $(READY)
	$(BIN)/python -m study.schema search_spaces/schema.json
	$(BIN)/python -m medmamba_variants.axis_table docs
	$(BIN)/python -m study.telling.index docs/studies.md

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "needs Python 3.11 to 3.13 on the PATH, found none" >&2; exit 1; }
	@echo "installing into .venv; the first time this takes some minutes"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e '.[test]'
	touch $@
