"""docs/tour.md: twelve steps whose files and names exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOUR = (ROOT / "docs" / "tour.md").read_text()
STOPS = sorted(set(re.findall(r"`([\w/]+\.py):(\w+)`", TOUR)))
PLACES = sorted(set(re.findall(r"`((?:analysis|study|medmamba_variants|tests)/[\w./]*)`", TOUR)))


def names_of(path: Path) -> set[str]:
    """What a module defines at its top."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return found


def test_there_are_twelve_steps_each_with_a_place():
    body, _, _ = TOUR.partition("\n## ")
    steps = re.split(r"^\d+\. ", body, flags=re.MULTILINE)[1:]
    assert [int(number) for number in re.findall(r"^(\d+)\. ", body, re.MULTILINE)] == list(range(1, 13))
    assert all(re.search(r"`[\w/]+\.py:\w+`", step) for step in steps)


@pytest.mark.parametrize(("path", "name"), STOPS, ids=":".join)
def test_the_name_is_there(path, name):
    assert name in names_of(ROOT / path)


def test_every_place_is_there():
    assert len(STOPS) > 25 and len(PLACES) > 5
    assert [place for place in PLACES if not (ROOT / place).exists()] == []


def test_a_name_that_has_gone_would_be_seen():
    assert "no_such_name" not in names_of(ROOT / "study/launch.py") and "main" in names_of(ROOT / "study/launch.py")
