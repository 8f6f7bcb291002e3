"""Studies: one YAML file per question, run over data sets and seeds, and resumed by running it again.

    study = load_study("search_spaces/split_ratio.yaml", seeds=[0, 1, 2])
    record, probabilities = run_cell(Cell(variant, study.recipe, DataRef(name, fingerprint, spec), seed=0))
    Ledger("mlruns/ledger").records()

From the command line: `python -m study.launch FILE`, `python -m study.ui`, `python -m study.explain FILE …`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
