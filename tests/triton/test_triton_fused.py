"""Fused encoders on Triton's kernels: they give what the layers give, and never wait for the device."""

import sys
from pathlib import Path

import pytest
import torch
from fused_models import FAMILIES, base, batch, both, close, packed, right
from gpu_or_interpreter import DEVICE

import sparseq
import sparseq_kernels
from sparseq.nn import fused_reason, use_sparse_kernels
from sparseq_kernels.registry import OPS

# What reads a tensor's values into Python, and so waits for the device: a graph that is captured may not.
READS = ("item", "tolist", "numpy", "cpu", "nonzero", "equal", "__bool__", "__int__", "__float__", "__index__")
OURS = tuple(str(Path(package.__file__).parent) for package in (sparseq, sparseq_kernels))

pytestmark = pytest.mark.usefixtures("on_triton")


def on_device(**call):
    return {name: tensor.to(DEVICE) for name, tensor in call.items()}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("padded", [False, True])
def test_against_the_layers(family, padded):
    model = packed(family, config={"num_hidden_layers": 1}).to(DEVICE)
    mask = right(6, 3) if padded else right(11, 11)
    found, expected = both(model, **on_device(**batch(2), attention_mask=mask))
    close(found.logits, expected.logits)


@pytest.mark.parametrize("form", [{"bits": 4}, {"pattern": "4x4", "sparsity": 0.5}], ids=str)
def test_forms(form):
    model = packed(config={"num_hidden_layers": 1}, **form).to(DEVICE)
    found, expected = both(model, **on_device(**batch(2)))
    close(found.logits, expected.logits)


def test_sparse_kernels_take_the_layers():
    model = use_sparse_kernels(packed(pattern="16x16", sparsity=0.5).to(DEVICE))
    with torch.inference_mode():
        assert "multiplied by a sparse kernel" in fused_reason(model)
        use_sparse_kernels(model, False)
        assert fused_reason(model) is None


@pytest.mark.parametrize("form", [{}, {"pattern": "4x4", "sparsity": 0.5}], ids=str)
@pytest.mark.parametrize(
    "masked",
    [False, pytest.param(True, marks=pytest.mark.skipif(DEVICE != "cuda", reason="a CPU looks for padding"))],
)
def test_a_call_reads_nothing_into_python(form, masked, monkeypatch):
    model = base(packed(config={"num_hidden_layers": 1}, **form).to(DEVICE))
    given = on_device(**batch(2), **({"attention_mask": right(6, 3)} if masked else {}))
    asked = []

    def watched(name, read):
        def run(*args, **kwargs):
            # Triton's interpreter reads tensors too.
            if (caller := sys._getframe(1).f_code).co_filename.startswith(OURS):
                asked.append(f"{name} in {caller.co_filename}: {caller.co_name}")
            return read(*args, **kwargs)

        return run

    for op in OPS.values():  # On a GPU values are not looked at.
        monkeypatch.setattr(op, "value_validation", None)
    with torch.inference_mode():
        expected = model(**given)[0]
        for name in READS:
            monkeypatch.setattr(torch.Tensor, name, watched(name, getattr(torch.Tensor, name)))
        found = model(**given)[0]
        assert asked == []
        monkeypatch.undo()
    assert torch.equal(found, expected)


@pytest.mark.skipif(DEVICE != "cuda", reason="half precision runs fused on a GPU alone, and graphs are a GPU's")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_in_a_cuda_graph(dtype):
    model = base(packed().to(DEVICE, dtype))
    given = on_device(**batch(), attention_mask=right(11, 3, 8, 1))
    found, expected = both(model, **given)
    close(found[0][given["attention_mask"].bool()], expected[0][given["attention_mask"].bool()], 5e-2, moved=0.2)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        captured = model(**given)[0]
    graph.replay()
    torch.cuda.synchronize()
    torch.testing.assert_close(captured, found[0])
