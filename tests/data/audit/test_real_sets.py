"""What is known of real public sets is found again, and nothing across splits in those that are clean."""

import pytest

from study.audit.findings import short_audit
from study.data import load_dataset

# Audited before: test images seen in train or val, of them equal; val images seen in train, of them equal.
KNOWN = {"breastmnist": (53, 1, 28, 0), "pneumoniamnist": (0, 0, 8, 8)}
CLEAN = (
    "busi", "cxr", "ham10000", "lc25000lung", "mednist", "brainmri", "malaria", "rbc", "bloodcells", "sperm",
    "chestct", "fundus",
)  # fmt: skip


# The clean ones take a second or more each.
NAMES = [*KNOWN, *(pytest.param(name, marks=pytest.mark.slow) for name in CLEAN)]


@pytest.mark.parametrize("name", NAMES)
def test_what_is_known_of_real_sets_is_found(data_root, name):
    if not (data_root / f"{name}.npz").is_file():
        pytest.skip(f"{name} is not there")
    found = short_audit(load_dataset({"kind": "npz", "root": str(data_root)}, name))["alike"]
    test, val = found["seen"]["test"], found["seen"]["val"]
    assert (test["images"], test["equal"], val["images"], val["equal"]) == KNOWN.get(name, (0, 0, 0, 0))
    if name == "breastmnist":
        assert test["of"] == 156 and found["conflicts"]["equal"] == 1
        pair = found["examples"]["conflicts"][0]
        assert pair["equal"] and pair["splits"] == ["test", "train"] and len(set(pair["classes"])) == 2
    if name == "pneumoniamnist":
        assert val["of"] == 524
    # The public collection holds mirrored copies, which a split by look-alikes as they are does not see.
    assert test["turned"] == (842 if name == "brainmri" else 0)
