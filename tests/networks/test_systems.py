"""SYSTEMS: every row of every list once, variants that are built, a page that says what the code says."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from medmamba_variants.config import VariantConfig
from medmamba_variants.cost import count_cost
from medmamba_variants.model import build_model
from medmamba_variants.scan import use_backend
from medmamba_variants.systems import __main__ as command
from medmamba_variants.systems.registry import SYSTEMS
from medmamba_variants.systems.system import EVIDENCE, LISTS, TIERS
from medmamba_variants.systems.table import (
    CLASSES,
    IMAGE_SIZE,
    PUBLISHED_CLASSES,
    difference,
    in_full,
    markdown,
    multiply_adds,
    parameters,
)

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "systems.md").read_text()
ROWS = {"note_1": 23, "note_2": 12, "papers": 88, "comparators": 34, "related": 9, "rivals": 3}
BUILT = {name: system for name, system in SYSTEMS.items() if system.axes is not None}
PUBLISHED = {name: system for name, system in SYSTEMS.items() if system.published_params}
# Parameters with a head for 1000 classes, counted once.
PINNED = {
    "medmamba_t": 15_221_608,
    "medmamba_s": 19_389_544,
    "medmamba_s_paper": 23_557_480,
    "medmamba_b": 40_883_688,
    "medmamba_b_paper": 48_144_872,
    "vmamba_t": 22_891_912,
    "vmamba_s": 44_415_880,
    "vmamba_b": 76_252_008,
    "convnext_t": 28_587_784,
    "convnext_s": 50_222_344,
    "convnext_b": 88_589_672,
    "vim_t": 7_157_416,
    "vmamba_t_v2": 30_711_208,
    "mambavision_t": 31_886_360,
    "vssd_t": 24_178_276,
    "swin_t": 28_275_106,
    "vit_s": 22_036_840,
}
# Variants written on the page whose parameters are counted anew; the rest of the page is compared as text.
SAMPLE = [*list(BUILT)[3::9], "groupmamba_t", "hc_mamba"]


def cells(name: str, section: str) -> list[str]:
    """The cells of a system's line on the page, before or after the heading of published numbers."""
    before, _, after = PAGE.partition("\n## Against published")
    lines = [
        line for line in (after if section == "published" else before).splitlines() if line.startswith(f"| `{name}` |")
    ]
    assert len(lines) == 1
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", lines[0])[1:-1]]


def written(config: VariantConfig, classes: int) -> int:
    """The number of parameters that the page gives for a variant."""
    known = PUBLISHED if classes == PUBLISHED_CLASSES else BUILT
    name = next(name for name, system in known.items() if system.config == config)
    section, column = ("published", 3) if classes == PUBLISHED_CLASSES else ("lists", 4)
    return int(cells(name, section)[column].replace(",", ""))


def test_every_row_of_every_list_is_there_once():
    assert list(ROWS) == list(LISTS) and sum(ROWS.values()) == 169
    for listed, count in ROWS.items():
        rows = [system.row for system in SYSTEMS.values() if system.listed == listed and not system.form_of]
        assert sorted(rows) == list(range(1, count + 1))
    for system in SYSTEMS.values():
        if system.form_of:
            whole = SYSTEMS[system.form_of]
            assert (system.listed, system.row) == (whole.listed, whole.row) and not whole.form_of


def test_names_are_lower_snake_case_and_medmamba_is_the_published_classifier():
    for name, system in SYSTEMS.items():
        assert system.name == name and re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name)
    assert "medmamba" not in SYSTEMS
    assert SYSTEMS["medmamba_t"].config == VariantConfig()


def test_a_system_has_a_variant_or_says_what_it_waits_for():
    for system in SYSTEMS.values():
        assert (system.config is None) == bool(system.waits_for)
        assert system.evidence in EVIDENCE and system.tier in TIERS
        assert system.title and system.mechanism.endswith(".") and system.source.startswith(LISTS[system.listed])
        assert bool(system.published_params) == bool(system.published_by)


@pytest.mark.parametrize("name", BUILT)
def test_the_line_for_a_study_makes_the_variant(name):
    config = BUILT[name].config
    assert config is not None
    line = next(line for line in in_full(BUILT[name], lambda *_: 0).splitlines() if line.startswith("  in a study "))
    ((key, axes),) = yaml.safe_load(line.removeprefix("  in a study ")).items()
    assert key == name and VariantConfig.from_dict(axes) == config
    assert multiply_adds(config) > 0


@pytest.mark.parametrize("name", SAMPLE)
def test_the_counts_on_the_page_are_those_of_the_network(name):
    config = BUILT[name].config
    assert config is not None
    counted = count_cost(config, image_size=IMAGE_SIZE, num_classes=CLASSES)
    assert written(config, CLASSES) == counted.params == parameters(config, CLASSES)
    assert multiply_adds(config) == counted.macs


def test_the_page_is_the_one_that_the_command_writes():
    assert markdown(written) == PAGE, (
        "replace docs/systems.md by the output of: python -m medmamba_variants.systems --markdown"
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_published_ones_or_the_reason_stands_there(name):
    system = PUBLISHED[name]
    if system.config is None:
        assert system.waits_for
        return
    counted = parameters(system.config, PUBLISHED_CLASSES)
    assert counted == written(system.config, PUBLISHED_CLASSES)
    assert counted == PINNED.get(name, counted)
    assert system.published_params
    if abs(counted / system.published_params - 1) > 0.01:
        assert system.deviates


def test_what_is_pinned_is_published():
    assert len(PINNED) >= 12 and set(PINNED) <= set(PUBLISHED)


@pytest.mark.parametrize("name", ["hc_mamba", "inception_mamba", "groupmamba_t", "vssd_t", "pv_ssm"])
def test_a_small_one_of_its_kind_learns(name):
    """One block in each stage and a fraction of the channels: logits come, and every parameter gets a gradient."""
    config = BUILT[name].config
    assert config is not None
    small = {"depths": [1] * len(config.depths), "dims": [max(16, width // 8 // 16 * 16) for width in config.dims]}
    model = build_model(VariantConfig.from_dict({**small, "drop_path_rate": 0.0}, base=config), num_classes=3, seed=0)
    images = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    with use_backend("portable"):
        logits = model(images)
        logits.square().sum().backward()
    assert logits.shape == (2, 3)
    assert [
        name for name, each in model.named_parameters() if each.grad is None or not each.grad.isfinite().all()
    ] == []


def test_the_command_prints_the_table_a_part_of_it_and_one_in_full(capsys):
    assert command.main([]) == 0
    table = capsys.readouterr().out
    assert all(re.search(rf"^{name} ", table, re.MULTILINE) for name in SYSTEMS)
    assert command.main(["--waits"]) == 0
    waiting = capsys.readouterr().out
    assert all(bool(re.search(rf"^{name} ", waiting, re.MULTILINE)) == SYSTEMS[name].waits for name in SYSTEMS)
    assert command.main(["--name", "vm_unet"]) == 0
    shown = capsys.readouterr().out
    assert shown == in_full(SYSTEMS["vm_unet"]) + "\n"
    assert "the released code was read" in shown and "22,127,526" in shown and "arXiv 2402.02491" in shown
    with pytest.raises(SystemExit) as end:
        command.main(["--name", "vmunet"])
    assert end.value.code == 2 and "did you mean vm_unet?" in capsys.readouterr().err


def test_a_difference_is_short_and_the_published_network_says_so():
    assert difference(VariantConfig()) == "MedMamba-T itself"
    assert difference(VariantConfig.from_dict({"split_ratio": 0.25})) == "split_ratio=0.25"


def test_reading_the_systems_loads_no_torch():
    code = (
        "import sys; from medmamba_variants import SYSTEMS; "
        "[system.config for system in SYSTEMS.values()]; print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "False"
