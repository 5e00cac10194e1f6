"""Outputs of a packed layer follow the dtype that it, or its input, has; integers and scales never change."""

import copy

import pytest
import torch
from packed_layers import FORMS, embedding, input_of, linear
from torch import nn

from sparseq.nn import PackedLinear, convert, pack
from sparseq_kernels import InputError

CASTS = {
    "to": lambda m, dtype: m.to(dtype),
    "to device and dtype": lambda m, dtype: m.to(device="cpu", dtype=dtype),
    "method": lambda m, dtype: getattr(m, {torch.float16: "half", torch.bfloat16: "bfloat16"}.get(dtype, "double"))(),
    "type": lambda m, dtype: m.type(dtype),
}
DTYPES = [torch.bfloat16, torch.float16, torch.float64]
TOLERANCE = {torch.bfloat16: 2e-2, torch.float16: 3e-3, torch.float64: 1e-5}


# Every form by one way to cast, and every way with a form of each kind: with integers, and without.
@pytest.mark.parametrize(
    ("form", "cast"),
    [*((form, "to") for form in FORMS),
     *((form, cast) for form in (FORMS[1], FORMS[-2]) for cast in CASTS if cast != "to"),
     *(pytest.param(form, cast, marks=pytest.mark.slow)
       for form in FORMS if form not in (FORMS[1], FORMS[-2]) for cast in CASTS if cast != "to")],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("make", [linear, embedding])
def test_outputs_follow_a_cast_and_scales_do_not(form, make, dtype, cast):
    layer = make(*form)
    with torch.no_grad():  # Weights as small as these are subnormal in half precision, and so would their scales be.
        if layer.scale is not None:
            layer.scale.mul_(1e-4)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    model = CASTS[cast](nn.Sequential(copy.deepcopy(layer)), dtype)
    after, y = model[0], model(input_of(layer, dtype))
    assert y.dtype == after.weight.dtype == after.dtype == dtype and y.isfinite().all()
    for name, tensor in after.state_dict().items():
        follows = name == "bias" or (name == "values" and layer.scale is None)
        assert tensor.dtype == (dtype if follows else before[name].dtype)
        assert follows or torch.equal(tensor, before[name])
    exact = layer(input_of(layer).to(dtype).float() if make is linear else input_of(layer))
    torch.testing.assert_close(
        y.float(), exact, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype] * exact.abs().max().item()
    )


@pytest.mark.parametrize("make", [linear, embedding])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_cast_there_and_back_loses_nothing_that_is_quantized(form, make):
    layer = make(*form, **({} if make is embedding else {"bias": False}))
    again = copy.deepcopy(layer).half().double().bfloat16().float()
    if layer.scale is not None:
        assert torch.equal(again(input_of(layer)), layer(input_of(layer)))
    assert again.settings() == layer.settings()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("make", [linear, embedding])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_layer_trained_in_a_dtype_is_packed_in_it(form, make, dtype):
    layer = make(*form, dtype=dtype)
    assert layer(input_of(layer, dtype)).dtype == layer.weight.dtype == dtype
    assert layer.scale is None or layer.scale.dtype == torch.float32
    again = type(layer).from_settings(layer.settings())
    again.load_state_dict(layer.state_dict())
    assert again.dtype == dtype and torch.equal(again(input_of(layer, dtype)), layer(input_of(layer, dtype)))


def test_static_scales_stay_too():
    model = convert(nn.Sequential(nn.Linear(8, 4)), activation="static")
    model(torch.randn(3, 8))
    packed = pack(model)
    scale = packed[0].input_scale.clone()
    packed.half()
    assert packed[0].input_scale.dtype == torch.float32 and torch.equal(packed[0].input_scale, scale)


def test_the_default_dtype_changes_nothing():
    layer, table = linear(8, "unstructured", "bitmask"), embedding(4, "unstructured", "dense")
    before = [layer(input_of(layer)), table(input_of(table))]
    settings, state = layer.settings(), layer.state_dict()
    torch.set_default_dtype(torch.float64)
    try:
        again = PackedLinear.from_settings(settings)
        again.load_state_dict(state)
        after = [again(input_of(layer).float()), table(input_of(table))]
    finally:
        torch.set_default_dtype(torch.float32)
    # The input itself is drawn in another precision.
    assert after[0].dtype == after[1].dtype == torch.float32 and torch.equal(after[1], before[1])
    assert {name: t.dtype for name, t in again.state_dict().items()} == {name: t.dtype for name, t in state.items()}


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64, torch.int8])
def test_a_dtype_that_no_layer_has_is_refused(dtype):
    layer = linear(8, "unstructured", "dense")
    with pytest.raises(InputError, match=f"cannot be cast to {dtype}: use one of float32, float16"):
        layer.type(dtype)
    assert layer.dtype == torch.float32 and layer(input_of(layer)).dtype == torch.float32


def test_a_float8_weight_is_not_packed():
    model = convert(nn.Sequential(nn.Linear(8, 4)))
    model[0].weight.data = model[0].weight.data.to(torch.float8_e4m3fn)
    with pytest.raises(InputError, match=r"weights of torch.float8_e4m3fn: only float32, float16"):
        model[0].pack()


def test_the_state_of_another_precision_is_not_squeezed_in():
    wide, narrow = (linear(bits, "unstructured", "dense", bias=False) for bits in (16, 8))
    with pytest.raises(InputError, match=r"values is torch.int16 in the state, and torch.int8 in this layer"):
        narrow.load_state_dict(wide.state_dict())


@pytest.mark.parametrize("assign", [False, True])
def test_scales_of_a_cast_state_are_held_in_fp32(assign):
    layer = linear(8, "unstructured", "dense")
    state = {n: t.half() if t.is_floating_point() else t for n, t in layer.state_dict().items()}
    layer.load_state_dict(state, assign=assign)
    assert layer.scale.dtype == torch.float32 and layer(input_of(layer)).isfinite().all()
