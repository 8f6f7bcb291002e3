"""The level of a contrast: read from the file, hashed only where it is not the default, and known to the plan."""

import pytest
from launch_fixture import CONTRAST, FILE, folder, launch  # noqa: F401, a fixture

from study.file.reading import load_study
from study.planning.reach import is_fixed, reaches, unreachable

FIXED = f"--set=contrasts=[{CONTRAST[:-1]}, level: these data sets}}]"


def study(folder, level=None, **settings):  # noqa: F811
    text = FILE if level is None else FILE.replace("margin: 0.01}", f"margin: 0.01, level: {level}}}")
    (folder / "study.yaml").write_text(text)
    return load_study(folder / "study.yaml", settings=settings)


def test_a_level_is_hashed_only_where_it_is_not_the_default(folder):  # noqa: F811
    plain, general, fixed = (study(folder, level) for level in (None, "in general", "these data sets"))
    assert plain.contrasts_hash == general.contrasts_hash == "9772aa596cde0953" and not is_fixed(general.contrasts[0])
    assert fixed.contrasts_hash != plain.contrasts_hash and is_fixed(fixed.contrasts[0])
    assert "level" not in plain.manifest()["contrasts"][0]
    assert fixed.manifest()["contrasts"][0]["level"] == "these data sets"
    with pytest.raises(ValueError, match=r"contrasts\[0\].level must be one of in general, these data sets; got 'all'"):
        study(folder, "all")


def test_three_seeds_reach_it_on_any_number_of_data_sets(folder):  # noqa: F811
    few, many = study(folder, "these data sets"), study(folder, "these data sets", seeds="[0, 1, 2]")
    assert reaches(many, many.contrasts[0]) and unreachable(many) is None
    assert unreachable(few) == (
        f"{folder}/study.yaml: confirmatory contrasts on these data sets must have 3 seeds, got 'all scan' with "
        "2 seeds (or kind: exploratory)"
    )


def test_a_dry_run_and_a_launch_know_it(folder, capsys):  # noqa: F811
    two = ("--datasets", "phantom_ct,phantom_mri", FIXED)
    assert launch("--dry-run", "--seeds", "0,1,2", *two) == 0
    out = capsys.readouterr().out
    assert "contrasts on these 2 data sets, by t over seeds and test images (α = 0.05, correction holm)" in out
    assert "  all scan: split_ratio=1 against baseline, macro-AUC, margin 0.01: on these data sets\n" in out
    assert "  found with 80 % power: on these data sets what the spread over seeds and test images lets through" in out
    assert launch("--dry-run", "--seeds", "0", *two) == 2
    assert "on these data sets: cannot reach α, which takes 3 seeds" in capsys.readouterr().out
    assert launch("--seeds", "0,1,2", *two) == 0
    out = capsys.readouterr().out
    line = next(line for line in out.splitlines() if line.startswith("  all scan: "))
    assert "over seeds and test images" in line and "exploratory" not in line and "note: " not in out
    assert launch("--dry-run", "--seeds", "0,1,2", *two) == 0
    out = capsys.readouterr().out
    assert "on these data sets a difference in macro-AUC of about 0." in out and "to which test images add" in out
