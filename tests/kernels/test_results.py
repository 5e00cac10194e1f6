"""What leaves an op is the caller's own: it may be changed in place, and shares memory with nothing."""

import itertools

import pytest
import torch
from samples import OPS, SAMPLES, call
from torch import Tensor, nn

import sparseq
from sparseq_kernels import use_backend
from sparseq_kernels.backends import runnable
from sparseq_kernels.registry import OPS as REGISTRY


def as_list(results):
    return [results] if isinstance(results, Tensor) else list(results)


def tensors(values):
    return [
        one for value in values for one in (value if isinstance(value, list) else [value]) if isinstance(one, Tensor)
    ]


def samples(op, requires_grad):
    for sample in SAMPLES[op](torch.float32):
        if any(isinstance(arg, Tensor) and arg.requires_grad for arg in sample) == requires_grad or not requires_grad:
            yield [arg.detach() if isinstance(arg, Tensor) and not requires_grad else arg for arg in sample]


WAYS = {
    "torch.ops": lambda op, args: getattr(OPS, op)(*args),
    "typed": lambda op, args: call(op, *args) if op != "magnitude_mask" else getattr(OPS, op)(*args),
    "without the dispatcher": lambda op, args: REGISTRY[op].run(*args),
}


@pytest.mark.parametrize("op", REGISTRY)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("backend", runnable())
def test_results_share_no_memory_with_arguments_or_one_another(op, way, backend):
    for args in samples(op, requires_grad=False):
        with use_backend(backend):
            results = as_list(WAYS[way](op, args))
        assert not any(result._is_view() or not result.is_contiguous() for result in results)
        assert len({*map(id, results)}) == len(results)
        for one, other in [*itertools.product(results, tensors(args)), *itertools.combinations(results, 2)]:
            assert one is not other
            assert not one.numel() or one.untyped_storage().data_ptr() != other.untyped_storage().data_ptr()


@pytest.mark.parametrize("op", [op for op in REGISTRY if any(samples(op, requires_grad=True))])
@pytest.mark.parametrize("way", ["torch.ops", "typed"])
@pytest.mark.parametrize("backend", runnable())
def test_a_result_may_be_changed_in_place_before_the_backward(op, way, backend):
    for args in samples(op, requires_grad=True):
        leaves = [arg for arg in args if isinstance(arg, Tensor) and arg.requires_grad]
        with use_backend(backend):
            y = as_list(WAYS[way](op, args))[0]
            weights = torch.randn_like(y)
            expected = torch.autograd.grad(y.mul(3).relu(), leaves, weights)
            y = as_list(WAYS[way](op, args))[0]
            found = torch.autograd.grad(y.mul_(3).relu_(), leaves, weights)
        for one, right in zip(found, expected, strict=True):
            torch.testing.assert_close(one, right)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("packed", [False, True])
def test_a_layer_before_an_activation_in_place_trains(bits, packed):
    model = sparseq.convert(nn.Sequential(nn.Linear(8, 8), nn.ReLU(inplace=True)), bits=bits)
    model = sparseq.pack(model) if packed else model
    x = torch.randn(2, 3, 8, requires_grad=True)
    model(x).sum().backward()
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("op", [op for op in REGISTRY if any(samples(op, requires_grad=True))])
def test_compiled_a_result_may_be_changed_in_place(op):
    args = next(samples(op, requires_grad=True))
    leaves = [arg for arg in args if isinstance(arg, Tensor) and arg.requires_grad]
    torch._dynamo.reset()
    run = torch.compile(lambda *args: as_list(getattr(OPS, op)(*args))[0].mul_(3), backend="aot_eager", fullgraph=True)
    y, expected = run(*args), as_list(getattr(OPS, op)(*args))[0].mul(3)
    for one, right in zip(
        torch.autograd.grad(y.sum(), leaves), torch.autograd.grad(expected.sum(), leaves), strict=True
    ):
        torch.testing.assert_close(one, right)
