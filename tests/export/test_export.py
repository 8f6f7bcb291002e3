"""Exported networks: files that run in a process without this suite, and what is refused."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from medmamba_variants.config import VariantConfig
from medmamba_variants.model import build_model
from medmamba_variants.networks import build_network, read_network
from study.export import command_line, graphs
from study.export.trained import build
from study.store.ledger import Ledger
from study.store.weights import Kept, as_bytes, read_kept

TINY = {"depths": [1, 1], "dims": [8, 16], "d_state": 2, "patch_size": 2, "odd_maps": "pad", "drop_path_rate": 0.0}
CLASSES = ["benign", "malignant", "none"]


def kept(tmp_path, **axes):
    """A file of the weights of an untrained network whose norms and offsets are nothing regular."""
    variant = VariantConfig.from_dict(axes, base=VariantConfig.from_dict(TINY))
    model = build_model(variant, num_classes=3, in_channels=2, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.2)
    about = {
        "variant": variant.diff(),
        "classes": CLASSES,
        "channels": 2,
        "image_size": [10, 14],
        "normalisation": {"scale": [0.02, 0.03], "offset": [-1.5, -2.5]},
        "cell_id": "abc123",
    }
    path = tmp_path / "abc123.safetensors"
    path.write_bytes(as_bytes(model.state_dict(), about))
    return path


def images(count=4):
    return np.random.default_rng(0).integers(0, 256, (count, 10, 14, 2), dtype=np.uint8)


def expected_of(path):
    """Probabilities as a cell computes them: normalised, network, softmax."""
    held = read_kept(path)
    model = build_model(VariantConfig.from_dict(held.about["variant"]), num_classes=3, in_channels=2).eval()
    model.load_state_dict(held.weights)
    pixels = torch.from_numpy(images()).double() * torch.tensor([0.02, 0.03]) + torch.tensor([-1.5, -2.5])
    with torch.no_grad():
        return model(pixels.float().permute(0, 3, 1, 2)).softmax(1).numpy()


def elsewhere(tmp_path, code):
    """Runs code in a process that cannot import this suite, and returns the array that it saves as out.npy."""
    np.save(tmp_path / "images.npy", images())
    guard = "import sys\nsys.path = [p for p in sys.path if p not in ('', sys.argv[1])]\n"
    check = "\nassert not any(name.split('.')[0] in ('medmamba_variants', 'study') for name in sys.modules)\n"
    root = str(command_line.__file__).rpartition("/study/")[0]
    run = subprocess.run(
        [sys.executable, "-I", "-c", guard + code + check, root], cwd=tmp_path, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    return np.load(tmp_path / "out.npy")


def run(*arguments):
    return command_line.main([str(argument) for argument in arguments])


@pytest.mark.slow
def test_a_torch_file_runs_without_this_suite(tmp_path, capsys):
    path = kept(tmp_path)
    assert run(path, "--to", "torch", "-o", tmp_path / "net.pt2") == 0
    out = capsys.readouterr().out
    assert "uint8 images (batch, 10, 14, 2) in, probabilities of 3 classes out; as the network on random images" in out
    found = elsewhere(
        tmp_path,
        "import numpy as np, torch, json\n"
        "extra = {'medmamba': ''}\n"
        "run = torch.export.load('net.pt2', extra_files=extra).module()\n"
        "assert json.loads(extra['medmamba'])['classes'] == ['benign', 'malignant', 'none']\n"
        "np.save('out.npy', run(torch.from_numpy(np.load('images.npy'))).detach().numpy())\n",
    )
    assert np.abs(found - expected_of(path)).max() < 1e-6


def test_an_onnx_file_is_standard_operators_and_runs_without_this_suite(tmp_path):
    onnx = pytest.importorskip("onnx")
    for name in graphs.NEEDED:
        pytest.importorskip(name)
    path = kept(tmp_path)
    assert run(path, "--to", "onnx", "-o", tmp_path / "net.onnx") == 0
    model = onnx.load(tmp_path / "net.onnx")
    onnx.checker.check_model(model)
    nodes = [*model.graph.node, *(node for function in model.functions for node in function.node)]
    assert {node.domain for node in nodes} <= {"", "ai.onnx"} and "Scan" in {node.op_type for node in nodes}
    (about,) = [json.loads(each.value) for each in model.metadata_props if each.key == "medmamba"]
    assert about["classes"] == CLASSES
    found = elsewhere(
        tmp_path,
        "import numpy as np, onnxruntime\n"
        "session = onnxruntime.InferenceSession('net.onnx')\n"
        "np.save('out.npy', session.run(['probabilities'], {'images': np.load('images.npy')})[0])\n",
    )
    assert np.abs(found - expected_of(path)).max() < 1e-5


def test_a_network_of_timm_is_exported_likewise(tmp_path):
    network = read_network({"timm": "test_resnet"})
    model = build_network(network, num_classes=3, in_channels=2, image_size=(32, 40))
    about = {"variant": network.diff(), "classes": CLASSES, "channels": 2, "image_size": [32, 40], "cell_id": "t"}
    about["normalisation"] = {"scale": [0.02, 0.03], "offset": [-1.5, -2.5]}
    trained = build(Kept(model.state_dict(), about), "here")
    content, worst = graphs.torch_file(trained)
    assert content and worst < 1e-5


def test_weights_are_handed_on_as_they_are(tmp_path):
    path = kept(tmp_path)
    assert run(path, "--to", "weights", "-o", tmp_path / "copy.safetensors") == 0
    assert (tmp_path / "copy.safetensors").read_bytes() == path.read_bytes()


def test_an_operator_of_this_suite_is_named(tmp_path, capsys):
    path = kept(tmp_path, branches=[[1.0, "lstm"]])
    assert run(path, "--to", "torch", "-o", tmp_path / "net.pt2") == 2
    error = capsys.readouterr().err
    assert error == (
        "error: the network must consist of torch's own operators to run without this suite, got medmamba::recurrent\n"
    )
    assert not (tmp_path / "net.pt2").exists()


def test_a_file_that_disagrees_is_refused(tmp_path):
    trained = build(read_kept(kept(tmp_path)), "here")
    with pytest.raises(ValueError, match=r"must agree with the network's to 0.0001, got a difference of 0\.0"):
        graphs._worst(trained, lambda given: trained.predictor(given).detach().numpy() + np.float32(0.01))
    with pytest.raises(ValueError, match=r"must give probabilities \(1, 3\), got \(3,\)"):
        graphs._worst(trained, lambda given: trained.predictor(given).detach().numpy()[0])


def test_missing_libraries_are_told_with_the_line_that_installs_them(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(graphs, "NEEDED", ("onnx", "no_such_library"))
    assert run(kept(tmp_path), "--to", "onnx", "-o", tmp_path / "net.onnx") == 2
    assert capsys.readouterr().err == (
        "error: for ONNX onnx, no_such_library must be installed, got no no_such_library "
        "(pip install 'medmamba-suite[export]')\n"
    )


def test_cells_are_found_by_the_beginning_of_their_id(tmp_path, capsys):
    file = kept(tmp_path).read_bytes()
    ledger = Ledger(tmp_path / "mlruns/ledger")
    done = {"schema": 1, "variant_id": "v", "recipe_id": "r", "variant": {}, "recipe": {}, "dataset": "d", "seed": 0}
    done |= {"data_fingerprint": "f", "numerics_version": 1, "status": "stopped", "curves": []}
    ledger.append({**done, "cell_id": "abd9"}, None)
    for cell_id, weights in (("abc123", {"weights": file}), ("abe5", {})):
        ledger.append({**done, **finished(), "cell_id": cell_id, **weights}, None)
    store = ("--store", tmp_path / "mlruns", "--to", "weights", "-o", tmp_path / "out.safetensors")
    assert run("abc", *store) == 0
    assert (tmp_path / "out.safetensors").read_bytes() == file
    for cell, message in (
        ("ab", "one of its 2 finished cells, or its beginning, got 'ab', with which 2 of them begin"),
        ("x", "one of its 2 finished cells, or its beginning, got 'x'"),
        ("abe5", "the cell must have kept weights, got none of abe5"),
    ):
        capsys.readouterr()
        assert run(cell, *store) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    (tmp_path / "mlruns/ledger/weights/abc123.safetensors").unlink()
    assert run("abc", *store) == 2
    assert "must be there, as the record of abc123 says, got nothing" in capsys.readouterr().err
    assert run("abc", *store[:-1], tmp_path / "out.pt") == 2
    assert "got" in capsys.readouterr().err


def finished():
    """What a finished record has, with metrics that say nothing."""
    from analysis.records.schema import FIRST_METRICS

    split = dict.fromkeys(FIRST_METRICS, 0.5) | {"per_class": [{}, {}, {}]}
    cost = {"params": 1, "macs": 1, "flops": 2}
    return {"status": "done", "classes": CLASSES, "cost": cost, "validation": split, "test": split, "seconds": 1.0}


def test_the_ending_must_be_that_of_the_kind(tmp_path, capsys):
    assert run(kept(tmp_path), "--to", "torch", "-o", tmp_path / "net.pt") == 2
    assert "--out must end in .pt2 for --to torch, got" in capsys.readouterr().err
