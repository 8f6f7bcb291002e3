"""What each package hands on by its face: the list, lazily and typed, with a help page that reads alone."""

import ast
import importlib
import inspect
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# What users may rely on: a name may be added, none may go.
FACES = {
    "medmamba_variants": "AXES Cost MedMambaVariant Measurement PRESETS SYSTEMS ScanPath System VariantConfig "
    "build_model count_cost custom_path load_public_state_dict measure_latency preset scan_path selective_scan "
    "ss2d_scan use_backend window_path",
    "medmamba_variants.scan": "selective_scan ss2d_scan use_backend",
    "medmamba_variants.systems": "SYSTEMS System",
    "study": "Cell Contrast DataRef Ledger NUMERICS_VERSION Recipe Study load_dataset load_study open_source run_cell",
    "study.data": "Dataset DatasetInfo Source Split fingerprint load_dataset open_source source_for",
    "analysis": "Contrast Interval METRICS Verdict absent_cells adjust all_metrics best_under_budget "
    "bootstrap_difference critical_difference decide decide_all delong detectable_effect friedman iqm load_ledger "
    "load_manifest load_predictions mcnemar mixed_model p_superior pareto_front performance_profile sign_flip "
    "signed_rank summary t_over_means tost two_level_bootstrap write_report",
    "analysis.records": "absent_cells load_ledger load_manifest read_records validate_record",
    "analysis.paired": "Bootstrap DeLong Estimate McNemar Randomisation TwoLevel bootstrap_difference bootstrap_metric "
    "delong false_claim_probability mcnemar mcnemar_counts randomisation_difference two_level_bootstrap",
    "analysis.across": "MixedModel adjust best_under_budget cliffs_delta critical_difference dataset_slope dz "
    "friedman hodges_lehmann iqm mixed_model p_superior pareto_front performance_profile rank_agreement sign_flip "
    "signed_rank summary t_interval t_over_means tost",
    "analysis.verdicts": "Contrast DatasetDifference Verdict decide decide_all",
}
HEAVY = {
    "torch",
    "numpy",
    "pandas",
    "scipy",
    "numba",
    "matplotlib",
    "ray",
    "optuna",
    "mlflow",
    "sklearn",
    "statsmodels",
}


def modules_of(face):
    return {path.stem for path in (ROOT / face.replace(".", "/")).iterdir() if path.suffix == ".py" or path.is_dir()}


@pytest.mark.parametrize("face", FACES)
def test_a_face_hands_on_what_is_listed(face):
    module = importlib.import_module(face)
    assert sorted(module.__all__) == sorted(FACES[face].split()) == sorted(dir(module))
    for name in module.__all__:
        assert getattr(module, name) is not None
    # The package's attribute would be the module or the function, whichever was asked for first.
    assert not set(module.__all__) & modules_of(face)
    with pytest.raises(AttributeError, match="no_such_name"):
        module.no_such_name  # noqa: B018


def test_importing_the_faces_loads_nothing_heavy():
    code = f"import sys, {', '.join(FACES)}; print(sorted({HEAVY!r} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("face", ["medmamba_variants", "study", "analysis"])
def test_help_reads_like_a_page(face):
    page = pydoc.plain(pydoc.render_doc(importlib.import_module(face)))
    assert inspect.getdoc(importlib.import_module(face)).splitlines()[0] in page
    for name in FACES[face].split():
        assert name in page
        thing = getattr(importlib.import_module(face), name)
        if inspect.isfunction(thing) or inspect.isclass(thing):
            first = inspect.getdoc(thing).splitlines()[0]
            # A reader of help() meets the line alone.
            assert first.rstrip(".:").split(" ")[0] not in ("As", "The same", "Same") and len(first) > 15, name


def test_every_face_has_its_types():
    for face in FACES:
        stub = ROOT / face.replace(".", "/") / "__init__.pyi"
        names = [a.asname for node in ast.parse(stub.read_text()).body for a in node.names]
        assert sorted(names) == sorted(FACES[face].split())
