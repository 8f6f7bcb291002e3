"""One addition of each sort: the text edits that make it, as README and CONTRIBUTING tell them, and a use of it.

The edits need no knowledge of what stands around a registry, so that they outlive other changes. The uses are written
with the words of `test_adding.WORDS`.
"""

import ast
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

Edit = Callable[[Path], None]


def entry(path: str, registry: str, text: str) -> Edit:
    """One more entry at the end of a dict or a tuple."""

    def apply(root: Path) -> None:
        source = (root / path).read_text().encode()
        value = assignment(source, registry).value
        lines = source.splitlines(keepends=True)
        end = sum(map(len, lines[: value.end_lineno - 1])) + value.end_col_offset - 1
        before = source[:end].rstrip().removesuffix(b",")
        (root / path).write_bytes(before + f",\n    {text},\n".encode() + source[end:])

    return apply


def above(path: str, registry: str, text: str) -> Edit:
    """Some lines above a registry."""

    def apply(root: Path) -> None:
        lines = (root / path).read_text().splitlines(keepends=True)
        place = assignment("".join(lines).encode(), registry).lineno - 1
        (root / path).write_text("".join([*lines[:place], f"{text}\n\n", *lines[place:]]))

    return apply


def replaced(path: str, old: str, new: str) -> Edit:
    """A text that stands once, replaced."""

    def apply(root: Path) -> None:
        source = (root / path).read_text()
        assert source.count(old) == 1, f"{path} must hold once: {old}"
        (root / path).write_text(source.replace(old, new))

    return apply


def added(path: str, text: str) -> Edit:
    """Lines at the end of a file, which may be new."""

    def apply(root: Path) -> None:
        with (root / path).open("a") as file:
            file.write(f"\n\n{text}\n")

    return apply


def assignment(source: bytes, name: str) -> ast.Assign | ast.AnnAssign:
    """The one assignment to a name at the top of a file."""
    found = [node for node in ast.parse(source).body if isinstance(node, ast.Assign | ast.AnnAssign)]
    targets = [node.targets[0] if isinstance(node, ast.Assign) else node.target for node in found]
    (only,) = (n for n, target in zip(found, targets) if isinstance(target, ast.Name) and target.id == name)
    return only


@dataclass(frozen=True)
class Addition:
    """What is added: `told` are the words of the document that tell how, `steps` the edits by name, `use` a program."""

    told: tuple[str, ...]
    steps: dict[str, Edit]
    use: str


AXES, JOINTS = "medmamba_variants/design/axes.py", "medmamba_variants/design/joints.py"
DESIGNS, MODEL = "medmamba_variants/design/mixers.py", "medmamba_variants/model.py"
MIXERS, FUSIONS = "medmamba_variants/parts/mixers/", "medmamba_variants/parts/fusions.py"
ORDERS, BY_HAND = "medmamba_variants/scan/directions.py", "tests/scan/test_paths.py"
DEFAULTS, FINGERPRINTS = "tests/builder/test_config.py", "tests/data/test_phantoms.py"
SAMPLERS, METRICS = "study/strategies/samplers.py", "analysis/metrics.py"
TABLES, ORACLE = "analysis/paired/resampling.py", "tests/paired/test_paired.py"
READERS = "study/data/readers.py"
PHANTOMS, DRAWINGS = "study/data/phantoms/sets.py", "study/data/phantoms/"
# Stands for the fingerprint of the phantom, which is known when it has been drawn.
UNKNOWN = "not drawn yet"

FUSION = Addition(
    ("`FUSIONS`", JOINTS, FUSIONS),
    {
        "component": above(
            JOINTS,
            "FUSIONS",
            '''
@dataclass(frozen=True)
class Subtract(Fusion):
    """Outputs side by side, taken from the residual."""

    word = "subtract"
    builds = "medmamba_variants.parts.fusions:Subtraction"
''',
        ),
        "name": entry(JOINTS, "FUSIONS", "Subtract"),
        "class": added(
            FUSIONS,
            """
class Subtraction(Concat):
    def join(self, outputs: Sequence[Tensor]) -> Tensor:
        return -torch.cat(list(outputs), dim=-1)
""",
        ),
    },
    """
in_table("fusion", "subtract")
trains({"fusion": "subtract"})
study({"axes": {"fusion": ["shuffle", "subtract"]}})
refuses({"axes": {"fusion": ["shuffle", "substract"]}}, "did you mean subtract?")
""",
)

MIXER = Addition(
    ("`MIXERS`", DESIGNS, MIXERS, "`macs`"),
    {
        "component": above(
            DESIGNS,
            "MIXERS",
            '''
from medmamba_variants.design.components import axis
from medmamba_variants.design.kinds import whole


@dataclass(frozen=True)
class Pointwise(Mixer):
    """A 1×1 convolution, as often as asked for."""

    word = "pointwise"
    builds = "medmamba_variants.parts.mixers.pointwise:PointwiseBranch"

    repeats: int = axis(1, whole(1, 9), "products in a row", "this test", probe=2)
''',
        ),
        "macs": replaced(
            DESIGNS,
            'axis(1, whole(1, 9), "products in a row", "this test", probe=2)\n',
            'axis(1, whole(1, 9), "products in a row", "this test", probe=2)\n\n'
            "    def macs(self, channels, height, width):\n"
            "        return self.repeats * channels**2 * height * width\n",
        ),
        "name": entry(DESIGNS, "MIXERS", "Pointwise"),
        "module": added(
            f"{MIXERS}pointwise.py",
            """
from torch import nn


class PointwiseBranch(nn.Sequential):
    def __init__(self, channels, component, drop_path):
        super().__init__(*(nn.Linear(channels, channels) for _ in range(component.repeats)))
""",
        ),
        "pin": entry(DEFAULTS, "GOLDEN_DEFAULTS", '"repeats": 1'),
    },
    """
in_table("branches", "pointwise")
in_table("repeats", "1 to 9")
trains({"branches": [[0.5, "pointwise"], [0.5, "ss2d"]]})
trains({"branches": [[0.5, {"pointwise": {"repeats": 2}}], [0.5, "pointwise"]]})
trains({"branches": [[0.5, "pointwise"], [0.5, "ss2d"]], "repeats": [1, 3]})
study({"axes": {"repeats": {"low": 1, "high": 9}}, "strategy": SEARCH, "variant": {"branches": [[1, "pointwise"]]}})
study({"axes": {"branches": [[[0.5, "pointwise"], [0.5, "ss2d"]]]}})
refuses({"axes": {"branches": [[[0.5, "pointwis"], [0.5, "ss2d"]]]}}, "did you mean pointwise?")
fails(lambda: VariantConfig(repeats=2), "branches (or split_ratio) hold no pointwise")
""",
)

ORDER = Addition(
    ("`ORDERS`", ORDERS, "`BY_HAND`", BY_HAND),
    {
        "entry": entry(
            ORDERS,
            "ORDERS",
            """"snake": Order(
        "row after row from the top, there and back",
        "snake backwards",
        lambda row, column, height, width: (row, column * (1 - 2 * (row % 2))),
    )""",
        ),
        "hand": entry(BY_HAND, "BY_HAND", '"snake": [0, 1, 2, 5, 4, 3], "snake_reverse": [3, 4, 5, 2, 1, 0]'),
    },
    """
from medmamba_variants.scan.paths import scan_path

in_table("scan_directions", "snake, each also backwards")
assert scan_path(("snake", "rows"), 2, 3).table.tolist() == [[0, 1, 2, 5, 4, 3], [0, 1, 2, 3, 4, 5]]
trains({"scan_directions": ["snake", "snake_reverse"]})
study({"axes": {"scan_directions": ["cross4", ["rows", "snake"]]}})
refuses({"axes": {"scan_directions": ["cross4", ["rows", "snaek"]]}}, "did you mean snake?")
""",
)

AXIS = Addition(
    ("`NETWORK`", AXES, "`GOLDEN_DEFAULTS`", DEFAULTS),
    {
        "declaration": entry(
            AXES,
            "NETWORK",
            'Axis("head_dropout", Number(0.0, 0.9), 0.0, "share of features hidden", "Srivastava 2014", probe=0.5)',
        ),
        "layer": replaced(
            MODEL, "        self.head = ", "        self.drop = nn.Dropout(config.head_dropout)\n        self.head = "
        ),
        "call": replaced(
            MODEL,
            "pooled = last.mean((1, 2))",
            "pooled = self.drop(last.mean((1, 2)))",
        ),
        "pin": entry(DEFAULTS, "GOLDEN_DEFAULTS", '"head_dropout": 0.0'),
    },
    """
in_table("head_dropout", "0 to 0.9")
trains({"head_dropout": 0.5})
study({"axes": {"head_dropout": [0, 0.5]}})
study({"axes": {"head_dropout": {"low": 0, "high": 0.5}}, "strategy": SEARCH})
refuses({"axes": {"head_dropuot": [0, 0.5]}}, "did you mean head_dropout?")
refuses({"axes": {"head_dropout": [1]}}, "axes.head_dropout[0] must be a number from 0 to 0.9, got 1")
""",
)

SAMPLER = Addition(
    ("`SAMPLERS`", SAMPLERS),
    {
        "function": above(
            SAMPLERS,
            "SAMPLERS",
            """
def _eager(draw, settings):
    from optuna.samplers import TPESampler

    return TPESampler(seed=draw.seed, n_startup_trials=settings["opening"])
""",
        ),
        "entry": entry(
            SAMPLERS,
            "SAMPLERS",
            '"eager_tpe": Sampler(_eager, {"opening": Setting(whole(1, 99), "trials at random", default=4)})',
        ),
    },
    """
from study.declaration.cells import DataRef
from study.planning.plan import make_plan
from study.store.ledger import Ledger
from study.strategies.search import make_strategy

eager = {**SEARCH, "name": "eager_tpe"}
assert study({"strategy": eager}).strategy.settings == {"opening": 4}
asked = study({"strategy": {**eager, "opening": 2}})
assert asked.strategy.settings == {"opening": 2}
refuses({"strategy": {**SEARCH, "name": "eagr_tpe"}}, "did you mean eager_tpe?")
refuses({"strategy": {**eager, "openign": 2}}, "did you mean opening?")
refuses({"strategy": {**eager, "opening": 0}}, "strategy.opening must be a whole number from 1 to 99, got 0")
refs = {name: DataRef(name, name, {}) for name in asked.datasets}
cell = make_strategy(make_plan(asked, refs, Ledger(HERE / "ledger")), HERE, lambda variant, dataset: 1.0).ask()
assert cell.variant.fusion in GRID["axes"]["fusion"]
""",
)

METRIC = Addition(
    ("`@metric`", METRICS, "`TABLE_METRICS`", TABLES, "`by_scikit_learn`", ORACLE),
    {
        "declaration": added(
            METRICS,
            '''
@metric("lowest recall")
def lowest_recall(scored: Scored) -> float:
    """Recall of the class that has the lowest."""
    return float(np.nanmin(class_recall(*scored.margins[:2])))
''',
        ),
        "table": entry(
            TABLES,
            "TABLE_METRICS",
            '"lowest_recall": lambda hits, true, predicted: np.nanmin(class_recall(hits, true), axis=-1)',
        ),
        "oracle": replaced(
            ORACLE,
            '            "mcc": lambda',
            """            "lowest_recall": lambda: min(
                sk.recall_score(labels, predicted, average=None, labels=np.unique(labels))
            ),
            "mcc": lambda""",
        ),
    },
    """
import numpy as np
from analysis.metrics import METRICS, all_metrics
from analysis.words import metric_name

labels, scores = np.array([0, 0, 1]), np.array([0.1, 0.8, 0.9])
assert METRICS["lowest_recall"](labels, scores) == all_metrics(labels, scores)["lowest_recall"] == 0.5
assert metric_name("lowest_recall") == "lowest recall"
declared = {"name": "c", "baseline": {"fusion": "shuffle"}, "against": {"fusion": "concat"}, "margin": 0.1}
study({"contrasts": [{**declared, "metric": "lowest_recall"}]})
study({"strategy": {**SEARCH, "objectives": ["lowest_recall"]}})
refuses({"contrasts": [{**declared, "metric": "lowest_recal"}]}, "did you mean lowest_recall?")
""",
)

READER = Addition(
    ("`READERS`", READERS, "`names`, `read` and `stamp`", "`checked_split`", "`assemble`"),
    {
        "class": added(
            "study/data/arrays.py",
            """
from pathlib import Path

import numpy as np

from study.data.npz import file_stamp
from study.data.protocol import SPLITS, assemble, checked_split


class ArrayFolder:
    def __init__(self, root, invert):
        self.root, self.invert = Path(root), invert

    def names(self):
        return sorted(path.name.removesuffix("_train.npy") for path in self.root.glob("*_train.npy"))

    def stamp(self, name):
        return tuple(file_stamp(self.root / f"{name}_{split}.npy") for split in SPLITS)

    def read(self, name):
        splits = {}
        for split in SPLITS:
            images = np.load(self.root / f"{name}_{split}.npy", allow_pickle=False)
            labels = np.arange(len(images)) % 2
            splits[split] = checked_split(name, split, 255 - images if self.invert else images, labels, None)
        return assemble(name, "made up", None, splits, name)
""",
        ),
        "function": above(
            READERS,
            "READERS",
            """
def _arrays(root, settings):
    from study.data.arrays import ArrayFolder

    return ArrayFolder(root, settings["invert"])
""",
        ),
        "entry": entry(
            READERS,
            "READERS",
            """"arrays": SourceKind(
        _arrays,
        lambda root, name: root is not None and (root / f"{name}_train.npy").is_file(),
        {"invert": Setting(Flag(), "whether black is white", default=False)},
    )""",
        ),
    },
    """
import numpy as np
from study.data.sources import load_dataset

for split in ("train", "val", "test"):
    np.save(HERE / f"toy_{split}.npy", np.arange(4 * 8 * 9, dtype=np.uint16).reshape(4, 8, 9).astype(np.uint8))
for invert, source in ((True, {"kind": "arrays", "invert": True}), (True, {"invert": True}), (False, {})):
    found = study({"datasets": ["toy"], "source": {"root": str(HERE), **source}})
    found.check_source()
    assert found.sources() == {"toy": {"kind": "arrays", "root": str(HERE), "invert": invert}}
    images = load_dataset(found.sources()["toy"], "toy").splits["train"].images
    assert images.shape == (4, 8, 9, 1) and images[0, 0, 0, 0] == 255 * invert
fails(lambda: study({"datasets": ["toi"], "source": {"root": str(HERE)}}).sources(), "did you mean toy?")
refuses({"source": {"kind": "arays", "root": "x"}}, "did you mean arrays?")
refuses({"source": {"kind": "arrays", "root": "x", "invrt": True}}, "did you mean invert?")
refuses({"source": {"kind": "arrays", "root": "x", "invert": 1}}, "source.invert must be true or false, got 1")
fails(lambda: study({"source": {"kind": "arrays"}}), "source.root must be given where source.kind is arrays")
fails(lambda: study({"source": {"kind": "npz", "root": "x", "invert": True}}), "source.invert must be left out")
""",
)

PHANTOM = Addition(
    ("`PHANTOMS`", PHANTOMS, DRAWINGS, "`FINGERPRINTS`", FINGERPRINTS),
    {
        "function": added(
            f"{DRAWINGS}controlled.py",
            '''
def hollow(canvas: Canvas, labels: Array, dials: Dials) -> Picture:
    """Is the spot, light or dark at random, solid or hollow?"""
    c = canvas
    size = c.uniform(0.3, 0.4)
    radius = c.rings(c.uniform(-0.5, 0.5), c.uniform(-0.5, 0.5), size, size)
    hole = choose(labels, (0, 1)) * dials["depth"] * c.inside(radius / 0.6, 0.4)
    image = 120 + 15 * c.smooth(4) + 50 * c.sign() * (c.inside(radius, 0.4) - hole)
    return image + 14 * dials["noise"] * c.grain(0.3), (radius < 1.1) & (labels > 0).reshape(-1, 1, 1)
''',
        ),
        "entry": entry(
            PHANTOMS,
            "PHANTOMS",
            """"phantom_hollow": Phantom(
        "solid or hollow",
        ("solid", "hollow"),
        1,
        controlled.hollow,
        {"depth": Setting(Number(0.5, 1), "how deep the hole is", default=1.0)},
    )""",
        ),
        "pin": entry(FINGERPRINTS, "FINGERPRINTS", f'"phantom_hollow": "{UNKNOWN}"'),
    },
    """
from study.data.sources import load_dataset

name = "phantom_hollow?depth=0.7&n_train=20"
(spec,) = study({"datasets": [name]}).sources().values()
assert load_dataset(spec, name).info.n_train == 20
fails(lambda: load_dataset(spec, "phantom_holow"), "did you mean phantom_hollow")
fails(lambda: load_dataset(spec, "phantom_hollow?dept=0.7"), "did you mean depth?")
fails(lambda: load_dataset(spec, "phantom_hollow?depth=2"), "depth must be a number from 0.5 to 1")
""",
)

# Told by README, and by CONTRIBUTING.
TO_THE_MODEL = {"fusion": FUSION, "mixer": MIXER, "scan order": ORDER, "axis": AXIS}
TO_THE_REST = {"sampler": SAMPLER, "metric": METRIC, "reader": READER, "phantom": PHANTOM}
