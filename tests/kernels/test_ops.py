"""What holds for every op: PyTorch's own check of schema, fake version, autograd and compiled dispatch; backends."""

import copy
import inspect
import pickle

import pytest
import torch
from samples import MASK, OPS, SAMPLES, call, leaf, positive
from torch.utils._pytree import tree_map_only

import sparseq_kernels
from sparseq_kernels import InputError, InputTypeError, backend, backends, set_backend, use_backend
from sparseq_kernels.backends import runnable
from sparseq_kernels.registry import OPS as REGISTRY
from sparseq_kernels.registry import implemented

# What of opcheck could go wrong with one backend alone: a result that is an argument's memory, or of another shape,
# type or strides than the fake version's. How an op is registered and compiled is the same for all of them; the slow
# run checks that too.
OF_A_BACKEND = {"test_utils": ("test_schema", "test_faketensor")}
CHECKS = [
    *(pytest.param(name, {} if name == backend() else OF_A_BACKEND, id=name) for name in runnable()),
    *(pytest.param(name, {}, id=f"{name}-all", marks=pytest.mark.slow) for name in runnable() if name != backend()),
]


def opcheck(op, args, **options):
    torch.library.opcheck(op, args, atol=1e-2, rtol=1e-2, **options)


@pytest.mark.parametrize("op", REGISTRY)
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("name", "options"), CHECKS)
def test_opcheck(op, dtype, name, options):
    with use_backend(name):
        for args in SAMPLES[op](dtype):
            opcheck(getattr(OPS, op).default, args, **options)


def turned(tensor):
    """The same values with the first dimension the innermost in memory."""
    if tensor.dim() < 2:
        return tensor
    laid = tensor.detach().transpose(0, -1).contiguous().transpose(0, -1)
    return laid.requires_grad_(tensor.requires_grad)


@pytest.mark.parametrize("op", REGISTRY)
@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", [n if n == backend() else pytest.param(n, marks=pytest.mark.slow) for n in runnable()])
def test_opcheck_of_transposed_arguments(op, dtype, name):
    """Compiled code relies on the strides of the fake version's results."""
    with use_backend(name):
        for args in tree_map_only(torch.Tensor, turned, SAMPLES[op](dtype)):
            opcheck(getattr(OPS, op).default, args)


@pytest.mark.parametrize("dtypes", [(torch.float64, torch.float32), (torch.float32, torch.float64)], ids=str)
@pytest.mark.parametrize(("name", "options"), CHECKS)
def test_opcheck_of_a_layer_of_two_dtypes(dtypes, name, options):
    x, weight = leaf(3, 6, dtype=dtypes[0]), leaf(4, 6, dtype=dtypes[1])
    for learned in (None, positive(4)):
        with use_backend(name):
            opcheck(OPS.qat_linear.default, (x, weight, leaf(4), MASK, learned), **options)


def test_every_op_has_every_backend():
    assert set(REGISTRY) == set(SAMPLES)
    for name in runnable():
        with use_backend(name):
            assert all(callable(backends.implementation(op, "cpu")) for op in REGISTRY.values())
        assert implemented(name) <= set(REGISTRY)


@pytest.mark.parametrize("op", [op for op in REGISTRY.values() if not op.name.endswith("_backward")], ids=str)
def test_a_typed_function_has_the_arguments_of_its_schema(op):
    function = getattr(sparseq_kernels, op.name)
    parameters = inspect.signature(function).parameters.values()
    defaults = [None if p.default is p.empty else p.default for p in parameters]
    assert [p.name for p in parameters] == list(op.names) and defaults == list(op.defaults)
    assert "Raises:" in function.__doc__ and "Returns:" in function.__doc__


def test_the_backend_is_visible_and_forceable():
    assert backend() == "native" and backend("cuda") == "triton"
    with use_backend("reference"):
        assert backend() == "reference"
    assert backend() == "native"
    with pytest.raises(InputError, match="unknown backend 'fast': available are reference, cpu, native, triton"):
        set_backend("fast")


def test_a_forced_backend_that_cannot_run_says_why():
    sentence = "is forced, but it runs on cpu tensors only, and int8_linear got cuda ones"
    with use_backend("cpu"), pytest.raises(InputError, match=sentence):
        backends.implementation(REGISTRY["int8_linear"], "cuda")


def test_an_op_is_copied_and_pickled_by_its_name():
    op = REGISTRY["int8_linear"]
    assert copy.deepcopy(op) is op and pickle.loads(pickle.dumps(op)) is op


def test_a_wrong_number_of_arguments_is_said():
    x, weight, scale = torch.randn(3, 8), torch.ones(4, 8, dtype=torch.int8), torch.ones(4)
    op = REGISTRY["int8_linear"]
    for args in ((x, weight, scale, None, None, "none", None, None, None), (), (x,)):
        with pytest.raises(InputTypeError):
            op(*args)


@pytest.mark.parametrize("op", ["quantize_rows", "qat_linear"])
def test_vmap_over_an_empty_batch(op):
    args = [torch.randn(0, 3, 8), *([torch.randn(4, 8)] if op == "qat_linear" else [])]
    dims = (0, *[None] * (len(args) - 1))
    found = torch.vmap(lambda *given: call(op, *given), in_dims=dims)(*args)
    assert found.shape == ((0, 3, 4) if op == "qat_linear" else (0, 3, 8))
