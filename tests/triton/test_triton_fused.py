"""Fused encoders on Triton's kernels: they give what the layers give, and never wait for the device."""

import pytest
import torch
from fused_models import FAMILIES, base, batch, both, close, packed, right
from gpu_or_interpreter import DEVICE

from sparseq.nn import fused_reason, use_sparse_kernels

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


@pytest.mark.skipif(DEVICE != "cuda", reason="half precision runs fused on a GPU alone, and graphs are a GPU's")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_in_a_cuda_graph(dtype):
    model = base(packed().to(DEVICE, dtype))
    given = on_device(**batch(), attention_mask=right(11, 3, 8, 1))
    found, expected = both(model, **given)
    close(found[0][given["attention_mask"].bool()], expected[0][given["attention_mask"].bool()], 5e-2)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        captured = model(**given)[0]
    graph.replay()
    torch.cuda.synchronize()
    torch.testing.assert_close(captured, found[0])
