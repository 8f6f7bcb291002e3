"""The command that predicts: the record's own probabilities from kept weights, of files, folders and npz files."""

import csv
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from study.data.sources import load_dataset
from study.declaration.recipe import Recipe
from study.export import graphs
from study.launch import main as launch
from study.predict import main
from study.store.ledger import Ledger
from study.store.weights import as_bytes
from study.training.images import on_device

DATA = "phantom_position?size=14x22&n_train=40&n_val=16&n_test=24"
STUDY = f"""\
question: Are predictions the record's?
base: nano
variant: {{depths: [1, 1], dims: [8, 16], d_state: 2}}
axes: {{split_ratio: [0.5]}}
seeds: [0]
datasets: ["{DATA}"]
recipe: {{epochs: 2, batch_size: 16, max_image_size: 18}}
"""

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    """Folder, kept file, record and stored probabilities of a cell that resizes its images."""
    folder = tmp_path_factory.mktemp("predict")
    (folder / "study.yaml").write_text(STUDY)
    options = ("--tracking-uri", "none", "--executor", "inline", "--no-report", "--keep", "weights")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert launch(["study.yaml", *options]) == 0
    ledger = Ledger(folder / "mlruns/ledger")
    (record,) = ledger.finished().values()
    return folder, ledger.folder / record["weights"], record, ledger.probabilities(record["cell_id"])


def images():
    return load_dataset({"kind": "phantom"}, DATA).splits["test"].images


def table(capsys, *arguments):
    """Header and rows of the table that the command prints."""
    assert main([str(argument) for argument in arguments]) == 0
    header, *rows = csv.reader(io.StringIO(capsys.readouterr().out))
    return header, rows


def assert_is_the_record_s(header, rows, record, stored):
    assert header == ["image", "predicted", *record["classes"]]
    found = np.array([[float(value) for value in row[2:]] for row in rows])
    assert np.abs(found - stored["test_probabilities"]).max() < 1e-6
    assert [row[1] for row in rows] == [record["classes"][i] for i in stored["test_probabilities"].argmax(1)]


def test_of_an_npz_file_it_is_the_record(cell, tmp_path, capsys):
    _, file, record, stored = cell
    np.savez(tmp_path / "set.npz", test_images=images()[..., 0], val_images=images()[:3, ..., 0])
    header, rows = table(capsys, file, tmp_path / "set.npz")
    assert_is_the_record_s(header, rows, record, stored)
    assert [row[0] for row in rows] == stored["test_ids"].tolist()
    assert [row[0] for row in table(capsys, file, tmp_path / "set.npz", "--split", "val")[1]] == [
        f"val/{i}" for i in range(3)
    ]


def test_of_a_folder_and_of_files_it_is_the_record_too(cell, tmp_path, capsys):
    folder, _, record, stored = cell
    (tmp_path / "set/inner").mkdir(parents=True)
    names = [f"{'inner/' if i % 2 else ''}{i:02d}.png" for i in range(24)]
    for name, pixels in zip(names, images()):
        Image.fromarray(pixels[..., 0]).save(tmp_path / "set" / name)
    (tmp_path / "set/notes.txt").write_text("no image")
    (tmp_path / "set/.hidden.png").write_text("no image")
    arguments = (record["cell_id"][:6], tmp_path / "set", "--store", folder / "mlruns", "-o", tmp_path / "out.csv")
    assert main([str(argument) for argument in arguments]) == 0
    assert capsys.readouterr().err == "note: 1 files of other kinds in the folders were left out\n"
    header, *rows = csv.reader(io.StringIO((tmp_path / "out.csv").read_text()))
    assert [row[0] for row in rows] == sorted(names)
    rows.sort(key=lambda row: names.index(row[0]))
    assert_is_the_record_s(header, rows, record, stored)
    # Of another size in between: each is resized by itself.
    Image.fromarray(np.kron(images()[0, ..., 0], np.ones((2, 2), np.uint8))).convert("RGB").save(tmp_path / "big.png")
    files = [tmp_path / "set" / names[0], tmp_path / "big.png", tmp_path / "set" / names[1]]
    _, rows = table(capsys, cell[1], *files)
    assert [row[0] for row in rows] == [str(file) for file in files]
    found = np.array([[float(value) for value in row[2:]] for row in rows])
    assert np.abs(found[[0, 2]] - stored["test_probabilities"][:2]).max() < 1e-6
    assert np.abs(found.sum(1) - 1).max() < 1e-5


class Line(torch.nn.Module):
    """Two classes by the mean of an image, as an exported file would have them."""

    def forward(self, images):
        mean = images.float().flatten(1).mean(1, keepdim=True) / 255
        return torch.cat([mean, 1 - mean], dim=1)


ABOUT = {"classes": ["bright", "dark"], "channels": 1, "image_size": [14, 22]}


def write_program(path, about):
    batch = {"images": {0: torch.export.Dim.DYNAMIC}}
    program = torch.export.export(Line(), (torch.zeros(2, 14, 22, 1, dtype=torch.uint8),), dynamic_shapes=batch)
    torch.export.save(program, path, extra_files={} if about is None else {graphs.HEADER: json.dumps(about)})


def write_onnx(path, about):
    from onnx import TensorProto, helper

    numbers = helper.make_tensor("full", TensorProto.FLOAT, [1], [255.0]), helper.make_tensor("one", 1, [1], [1.0])
    nodes = [
        helper.make_node("Cast", ["images"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Flatten", ["floats"], ["flat"], axis=1),
        helper.make_node("ReduceMean", ["flat", "axis"], ["mean"], keepdims=1),
        helper.make_node("Div", ["mean", "full"], ["bright"]),
        helper.make_node("Sub", ["one", "bright"], ["dark"]),
        helper.make_node("Concat", ["bright", "dark"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "line",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["n", 14, 22, 1])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 2])],
        [*numbers, helper.make_tensor("axis", TensorProto.INT64, [1], [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    if about is not None:
        helper.set_model_props(model, {graphs.HEADER: json.dumps(about)})
    path.write_bytes(model.SerializeToString())


@pytest.mark.parametrize(("ending", "write"), [(".pt2", write_program), (".onnx", write_onnx)])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_exported_files_predict(tmp_path, capsys, ending, write):
    if ending == ".onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    np.savez(tmp_path / "set.npz", images=images())
    write(tmp_path / f"net{ending}", ABOUT)
    header, rows = table(capsys, tmp_path / f"net{ending}", tmp_path / "set.npz")
    assert header == ["image", "predicted", "bright", "dark"] and [row[0] for row in rows] == [
        str(i) for i in range(24)
    ]
    bright = images().mean((1, 2, 3)) / 255
    found = np.array([[float(value) for value in row[2:]] for row in rows])
    assert np.abs(found - np.stack([bright, 1 - bright], axis=1)).max() < 1e-5
    assert [row[1] for row in rows] == ["bright" if value > 0.5 else "dark" for value in bright]
    write(tmp_path / f"bare{ending}", None)
    assert main([str(tmp_path / f"bare{ending}"), str(tmp_path / "set.npz")]) == 2
    assert "must be a file of study.export, which names its classes, got one without" in capsys.readouterr().err


def test_resizing_is_that_of_cells(cell):
    seen = on_device(images(), np.zeros(24), Recipe.from_dict({"max_image_size": 18}), torch.device("cpu"))
    assert list(seen.pixels.shape[1:3]) == [11, 18]


@pytest.mark.parametrize(
    ("model", "images", "message"),
    [
        ("no", "a.png", "CELL must be the id of one of its 0 finished cells, or its beginning, got 'no'"),
        ("no.pt2", "a.png", "no.pt2: must be a file, got nothing there"),
        ("text.pt2", "a.png", "text.pt2: must be a program of torch.export, got"),
        ("text.safetensors", "a.png", "text.safetensors: must be a file of kept weights, got"),
        ("text.png", "a.png", "text.png: must end in .safetensors, .pt2, .onnx, got .png"),
        ("KEPT", "none.png", "none.png: must be a readable image, got No such file"),
        ("KEPT", "text.png", "text.png: must be a readable image, got cannot identify"),
        ("KEPT", "deep.png", "deep.png: must be an image of eight bits a channel, got 16 bits"),
        ("KEPT", "empty", "empty: must hold images"),
        ("KEPT", "other.npz", "other.npz: must hold test_images or images, got a"),
        ("KEPT", "wide.npz", r"wide.npz: images must be uint8 (n, height, width, 1), got float64 (2, 4, 4, 1)"),
        ("KEPT", "text.npz", "text.npz: must be an npz file of images, got"),
        ("TWO", "a.png", "a.png: must be an npz file for a model of 2 channels, got an image"),
    ],
)
def test_what_cannot_be_predicted_is_one_line(cell, tmp_path, capsys, monkeypatch, model, images, message):
    monkeypatch.chdir(tmp_path)
    for name in ("text.pt2", "text.safetensors", "text.png", "text.npz"):
        (tmp_path / name).write_text("text")
    (tmp_path / "empty").mkdir()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save("a.png")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save("deep.png")
    np.savez("other.npz", a=np.zeros(2))
    np.savez("wide.npz", images=np.zeros((2, 4, 4, 1)))
    (tmp_path / "two.safetensors").write_bytes(two_channels())
    given = {"KEPT": str(cell[1]), "TWO": "two.safetensors"}.get(model, model)
    assert main([given, images]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def two_channels():
    """Kept weights of a network for images of two channels."""
    from medmamba_variants.config import VariantConfig
    from medmamba_variants.model import build_model

    variant = VariantConfig.from_dict({"depths": [1, 1], "dims": [8, 16], "d_state": 2, "patch_size": 2})
    about = {"variant": variant.diff(), "classes": ["a", "b"], "channels": 2, "image_size": [4, 4], "cell_id": "x"}
    about["normalisation"] = {"scale": [1.0, 1.0], "offset": [0.0, 0.0]}
    return as_bytes(build_model(variant, num_classes=2, in_channels=2).state_dict(), about)
