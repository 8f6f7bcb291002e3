"""The scan as a loop of torch's own operators, as exported graphs hold it: each path and rule by the recurrence."""

import pytest
import torch
from test_scan import PATHS, make, relative

from medmamba_variants.scan import reference, ss2d_scan
from medmamba_variants.scan.discretisation.rules import RULES
from medmamba_variants.scan.lines import scan_lines
from medmamba_variants.scan.loops import as_loops


def traced(function, *inputs):
    """What the function gives as one graph, and the operators in it."""
    names = []

    def backend(graph, example_inputs):
        names.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
        return graph.forward

    torch._dynamo.reset()
    with torch.no_grad(), as_loops():
        made = torch.compile(function, backend=backend, fullgraph=True)(*inputs)
    assert any("scan" in name for name in names) and not any("medmamba" in name for name in names)
    return made


@pytest.mark.parametrize(
    ("name", "rule"), [*((name, "mamba") for name in PATHS), *(("pauses", rule) for rule in RULES)]
)
def test_every_path_and_rule(name, rule):
    path = PATHS[name]()
    inputs = make(path, grad=False)
    expected = reference.scan(*inputs, torch.tensor(path.table), torch.tensor(path.resets), rule)
    got = traced(lambda *tensors: ss2d_scan(*tensors, path, discretisation=rule), *inputs)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)


def test_step_sizes_as_a_product_and_half_precision():
    path = PATHS["windows"]()
    x, _, A, B, C, D, bias = make(path, dtype=torch.float32, grad=False)
    delta, weight = torch.randn(2, 35, 2, 4), torch.randn(2, 3, 4)
    inputs = x, delta, A, B, C, D, bias
    expected = ss2d_scan(*inputs, path, weight)
    got = traced(lambda weight, *tensors: ss2d_scan(*tensors, path, weight), weight, *inputs)
    assert relative(got, expected) < 1e-6
    halves = [tensor.bfloat16() for tensor in (x, delta, B, C)]
    x, delta, B, C = halves
    inputs = x, delta, A, B, C, D, bias
    got = traced(lambda weight, *tensors: ss2d_scan(*tensors, path, weight), weight, *inputs)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got, ss2d_scan(*inputs, path, weight), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("axis", [1, 2])
def test_lines(axis):
    decay, drive = torch.rand(2, 2, 4, 5, 3, dtype=torch.float64)
    expected = scan_lines(decay, drive, axis)
    got = traced(lambda decay, drive: scan_lines(decay, drive, axis), decay, drive)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)
