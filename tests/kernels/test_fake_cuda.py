"""What torch.compile and torch.export see of a GPU: fake CUDA tensors, on a machine that may have none.

A CPU build of torch has neither CUDA's random numbers nor its autograd, hence torch.empty and frozen parameters.
"""

import pytest
import torch
from samples import OPS, SAMPLES
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_map_only

import sparseq
from sparseq.nn import QuantEmbedding, QuantSparseLinear
from sparseq_kernels import use_backend
from sparseq_kernels.registry import OPS as REGISTRY


def on_cuda(tensor):
    return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda")


@pytest.mark.parametrize("op", REGISTRY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_op_has_the_shapes_and_types_that_the_reference_has(op, dtype):
    run = getattr(OPS, op)
    for args in SAMPLES[op](dtype):
        with torch.no_grad(), use_backend("reference"):
            expected = run(*args)
        with torch.no_grad(), FakeTensorMode(), use_backend("reference"):
            found = run(*tree_map_only(torch.Tensor, on_cuda, args))
        pairs = [(found, expected)] if isinstance(expected, torch.Tensor) else zip(found, expected, strict=True)
        for fake, real in pairs:
            assert fake.device.type == "cuda" and fake.dtype == real.dtype and fake.shape == real.shape


def linears():
    for settings in ({}, {"bits": 4}, {"bits": 16}, {"scale": "lsq", "activation": "static"}, {"pattern": "2:4"}):
        layer = QuantSparseLinear(8, 4, **settings)
        for _ in range(2):  # static activations get a scale, and the layer sees that they have one
            layer(torch.randn(3, 8))
        if "pattern" in settings:
            layer.set_mask(torch.tensor([True, False, True, False]).repeat(4, 2))
        yield layer, torch.empty(2, 3, 8)


def layers():
    """(layer, input) of every kind that uses these ops, in training and packed."""
    for layer, x in [*linears(), (QuantEmbedding(9, 8), torch.tensor([[1, 2, 0]]))]:
        yield layer, x
        yield sparseq.pack(nn.Sequential(layer))[0], x
    late = QuantSparseLinear(8, 4)
    late.set_mask(torch.rand(4, 8) > 0.5)
    late.quantizing = False
    yield late, torch.empty(3, 8)


@pytest.mark.parametrize("layer,x", list(layers()), ids=lambda v: type(v).__name__)
def test_layers_compile_without_a_break_and_export(layer, x):
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        layer._apply(on_cuda).requires_grad_(False)
        x = on_cuda(x)
        eager = layer(x)
        torch._dynamo.reset()
        compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
        graph = torch.export.export(layer, (x,)).graph
    assert eager.device.type == compiled.device.type == "cuda" and eager.shape == compiled.shape
    assert any("sparseq" in str(node.target) for node in graph.nodes)
