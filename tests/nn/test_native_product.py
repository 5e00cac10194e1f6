"""Which calls of a packed linear layer are one call of native code, and that others are the op's."""

import copy
import gc
import pickle
import weakref

import pytest
import torch
from cpu_backends import NATIVE, on
from packed_layers import FORMS, input_of, linear
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from sparseq.nn import QuantSparseLinear, native_product
from sparseq.nn.native_product import NativeProduct
from sparseq.nn.packed_linear import MOST_CHANGES
from sparseq_kernels import InputError, use_backend

pytestmark = pytest.mark.skipif(
    not NATIVE or NATIVE == ["native portable"], reason="there is no native code here that is faster than the op"
)

QUANTIZED = [form for form in FORMS if form[0] in (4, 8)]
WIDE = [form for form in FORMS if form not in QUANTIZED]


@pytest.fixture(autouse=True)
def native():
    with use_backend("native"):
        yield


@pytest.fixture
def taken(monkeypatch):
    """How many calls native code has run."""
    calls, run = [], NativeProduct.run

    def counted(self, layer, x):
        result = run(self, layer, x)
        calls.extend([self] * (result is not None))
        return result

    monkeypatch.setattr(NativeProduct, "run", counted)
    return calls


def by_op(layer, x):
    with use_backend("reference"):
        return layer(x)


@pytest.mark.parametrize("form", QUANTIZED, ids=str)
def test_a_plain_call_is_native_and_gives_the_bits_of_the_op(form, taken):
    layer = linear(*form)
    x = input_of(layer)
    for given in (x, x[:0], x[0], x[:, None], x.expand(2, 4, 32), x.repeat(1, 2)[:, ::2]):
        assert torch.equal(layer(given), by_op(layer, given))
    assert len(taken) == 6


@pytest.mark.parametrize("form", WIDE, ids=str)
def test_wider_weights_are_not_native(form, taken):
    layer = linear(*form)
    layer(input_of(layer))
    assert not taken


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_with_and_without_bias_and_static_scale(bias, static, taken):
    torch.manual_seed(0)
    trained = QuantSparseLinear(24, 10, bias=bias, activation="static" if static else "dynamic")
    x = torch.randn(7, 24)
    if static:
        trained.train()(x)
    layer = trained.eval().pack()
    assert torch.equal(layer(x), by_op(layer, x)) and len(taken) == 1


OTHER_CALLS = {
    "bf16": lambda layer, x: layer(x.bfloat16()),
    "fp64": lambda layer, x: layer(x.double()),
    "autocast": lambda layer, x: in_autocast(layer, x),
    "a gradient": lambda layer, x: layer(x.clone().requires_grad_()),
    "vmap": lambda layer, x: torch.func.vmap(layer)(x),
    "jvp": lambda layer, x: torch.func.jvp(layer, (x,), (x,)),
    "a dispatch mode": lambda layer, x: observed(layer, x),
    "a subclass": lambda layer, x: layer(nn.Parameter(x, requires_grad=False)),
    "another backend": by_op,
    "compiled": lambda layer, x: torch.compile(layer, backend="eager", fullgraph=True)(x),
    "exported": lambda layer, x: torch.export.export(layer, (x,)).module()(x),
    "traced": lambda layer, x: torch.jit.trace(layer, (x,), check_trace=False)(x),
}


def in_autocast(layer, x):
    with torch.autocast("cpu", torch.bfloat16):
        return layer(x)


def observed(layer, x):
    with FlopCounterMode(display=False) as counter:
        result = layer(x)
    assert counter.get_total_flops() == 2 * 4 * 32 * 16
    return result


@pytest.mark.parametrize("how", OTHER_CALLS)
def test_any_other_call_is_the_ops(how, taken):
    layer = linear(8, "unstructured", "dense")
    x = input_of(layer)
    OTHER_CALLS[how](layer, x)
    assert not taken
    layer(x)
    assert len(taken) == 1


@pytest.mark.parametrize("name", ["values", "scale", "bias"])
def test_what_is_changed_is_seen_and_native_again(name, taken):
    layer, other = linear(8, "unstructured", "dense", 0), linear(8, "unstructured", "dense", 1)
    x = input_of(layer)
    layer(x)
    layer.get_buffer(name).copy_(other.get_buffer(name))
    for _ in range(3):
        assert torch.equal(layer(x), by_op(layer, x))
    assert len(taken) == 3  # All but the one that found the change.


def test_tensors_that_keep_changing_are_left_to_the_op_and_not_kept(taken):
    layer, x = linear(8, "unstructured", "dense"), torch.randn(3, 32)
    layer(x)
    taken.clear()
    for _ in range(MOST_CHANGES + 2):
        old = weakref.ref(layer.values)
        layer.values = layer.values.flip(0).clone()
        assert torch.equal(layer(x), by_op(layer, x))
    gc.collect()
    assert layer._native is None and not taken and old() is None
    layer.expand()
    assert torch.equal(layer(x), by_op(layer, x)) and len(taken) == 1


@pytest.mark.parametrize("name", ["scale", "bias"])
def test_a_buffer_that_was_made_a_parameter_has_its_gradient(name, taken):
    layer, x = linear(8, "unstructured", "dense"), torch.randn(3, 32)
    value = layer.get_buffer(name)
    delattr(layer, name)
    setattr(layer, name, nn.Parameter(value))
    if name == "bias":
        layer(x).sum().backward()
        assert torch.equal(layer.bias.grad, torch.full((16,), 3.0))
    else:
        with pytest.raises(InputError, match="gradient"):
            layer(x)
    assert not taken


def test_a_bias_that_is_added_later(taken):
    layer, x = QuantSparseLinear(32, 16, bias=False).eval().pack(), torch.randn(3, 32)
    before = layer(x)
    layer.bias = nn.Parameter(torch.ones(16), requires_grad=False)
    assert torch.equal(layer(x), by_op(layer, x)) and not torch.equal(layer(x), before)


@pytest.mark.parametrize("form", QUANTIZED, ids=str)
def test_moved_cast_and_copied_layers(form, taken):
    layer = linear(*form)
    x = input_of(layer)
    right = layer(x)
    for copied in (copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one)), copy.copy, nn.Module.share_memory):
        assert torch.equal(copied(layer)(x), right)
    assert len(taken) == 5
    half = copy.deepcopy(layer).half()
    assert torch.equal(half(x), by_op(half, x)) and len(taken) == 5  # Its bias is in fp16.
    assert torch.equal(half.float()(x), by_op(half, x)) and len(taken) == 6
    meta = copy.deepcopy(layer).to("meta")
    assert meta._native is None and meta(x.to("meta")).is_meta
    state = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    meta.to_empty(device="cpu").load_state_dict(state)
    assert torch.equal(meta(x), right) and len(taken) == 7
    assert state.keys() == layer.state_dict().keys() == linear(*form).state_dict().keys()


def test_the_instruction_set_that_is_forced_at_run_time_is_obeyed():
    layer = linear(8, "unstructured", "bitmask")
    x = input_of(layer)
    right = by_op(layer, x)
    for name in NATIVE:
        with on(name):
            assert torch.equal(layer(x), right)
            # Portable C is slower than the op.
            if not name.endswith("portable"):
                assert layer._native._native.instruction_set == name.split()[-1]


def test_the_weight_is_packed_in_the_first_call_and_freed_with_the_layer():
    layer = linear(8, "unstructured", "dense")
    assert layer._native is True
    layer(input_of(layer))
    assert layer._native.nbytes > 16 * 32
    product = weakref.ref(layer._native)
    gc.disable()
    try:
        del layer
        assert product() is None
    finally:
        gc.enable()


def test_what_native_code_refuses_is_refused_by_the_op(monkeypatch):
    layer = linear(8, "unstructured", "dense")

    def refuse(*_):
        raise InputError("no")

    monkeypatch.setattr(native_product, "NativeLinear", refuse)
    assert torch.equal(layer(input_of(layer)), by_op(layer, input_of(layer)))
    with pytest.raises(InputError, match="int8_linear"):
        layer(torch.randn(3, 31))


def test_rows_that_are_left_to_torchs_product(monkeypatch, taken):
    layer, x = linear(8, "unstructured", "dense"), torch.randn(8, 32)
    monkeypatch.setattr(native_product, "is_wanted", lambda rows: rows < 8)
    assert torch.equal(layer(x)[:7], layer(x[:7])) and len(taken) == 1


def test_tensors_are_not_kept_where_native_code_is_not_used():
    layer = linear(8, "unstructured", "dense")
    first = weakref.ref(layer.values)
    with use_backend("cpu"):
        layer(input_of(layer))
        layer.values = layer.values.clone()
        layer(input_of(layer))
    gc.collect()
    assert first() is None


def test_tensors_put_there_for_one_call_do_not_turn_native_code_off(taken):
    layer = linear(8, "unstructured", "dense")
    x = input_of(layer)
    with torch.inference_mode():
        given = {name: tensor.clone() for name, tensor in layer.named_buffers()}
        torch.func.functional_call(layer, given, (x,))
    taken.clear()
    with torch.no_grad():
        layer(x)
    assert len(taken) == 1


@pytest.mark.parametrize("other", [torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr, torch.Tensor.to_mkldnn])
def test_inputs_without_strides_are_refused_by_the_op(other):
    layer = linear(8, "unstructured", "dense")
    x = torch.randn(3, 32)
    with torch.no_grad():
        layer(x)
        with pytest.raises(InputError, match="must be a dense tensor"):
            layer(other(x))
