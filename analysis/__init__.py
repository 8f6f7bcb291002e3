"""Statistics over a ledger: its cells as a table, paired tests (F1, AUC and more), verdicts on contrasts, a report.

    table = load_ledger("mlruns", study="split_ratio")
    manifest = load_manifest("mlruns", "split_ratio")
    for verdict in decide_all(table, manifest, "mlruns"):
        print(verdict.sentence)

Two models on the same test images: `delong`, `bootstrap_difference`, `mcnemar` and, where seeds are drawn anew too,
`two_level_bootstrap`. Several data sets: `signed_rank`, `friedman`, `critical_difference`, `mixed_model`, `tost`,
`adjust`. Cost: `pareto_front`. From the command line: `python -m analysis.report STUDY`, `python -m analysis.selftest`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
