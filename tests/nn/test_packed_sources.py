"""What a packed layer made of its tensors is for those alone: others, or changed ones, are never mixed with it."""

import copy
import io
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from packed_layers import FORMS, embedding, input_of, linear
from torch import nn

from sparseq.nn import PackedLinear
from sparseq_kernels import InputError
from sparseq_kernels.formats import BitmapWeight

MAKERS = [linear, embedding]
# Of what is compiled, which takes long: a layer without a copy, and two with one.
COMPILED = [(8, "unstructured", "dense"), (8, "unstructured", "bitmask"), (4, "4x4", "block_sparse")]


def compiled(function):
    torch._dynamo.reset()  # Of a function of this module it keeps but so many versions.
    return torch.compile(function, backend="aot_eager", fullgraph=True)


def two(make, form):
    """Layers of one kind and other values, and what they give."""
    a, b = make(*form, seed=0), make(*form, seed=1)
    return a, b, a(input_of(a)), b(input_of(b))


def in_place(a, b):
    for name, tensor in b.state_dict().items():
        a.get_buffer(name).copy_(tensor)


def by_data(a, b):
    for name, tensor in b.state_dict().items():
        a.get_buffer(name).data = tensor.clone()


def by_setattr(a, b):
    for name, tensor in b.state_dict().items():
        setattr(a, name, tensor.clone())


def by_swapping(a, b):
    for name, tensor in copy.deepcopy(b).state_dict().items():
        torch.utils.swap_tensors(a.get_buffer(name), tensor)


CHANGES = {
    "copy_": in_place,
    ".data": by_data,
    "attribute": by_setattr,
    "swap_tensors": by_swapping,
    "load": lambda a, b: a.load_state_dict(b.state_dict()),
    "load, assigned": lambda a, b: a.load_state_dict(b.state_dict(), assign=True),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_changed_tensors_are_what_is_multiplied_by(form, make, change):
    a, b, ya, yb = two(make, form)
    assert not torch.equal(ya, yb)
    CHANGES[change](a, b)
    assert torch.equal(a(input_of(a)), yb) and torch.equal(a.weight, b.weight)
    a.expand()
    assert torch.equal(a(input_of(a)), yb)


@pytest.mark.parametrize("state", ["state_dict", "named_buffers"])
@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_functional_call_is_of_the_state_that_is_given(form, make, state):
    a, b, ya, yb = two(make, form)
    given = dict(getattr(b, state)())
    for _ in range(2):
        assert torch.equal(torch.func.functional_call(a, given, input_of(a)), yb)
        assert torch.equal(a(input_of(a)), ya)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("form", COMPILED, ids=str)
def test_compiled_calls_are_of_the_state_that_is_given(form, make):
    a, b, ya, yb = two(make, form)
    torch.testing.assert_close(compiled(a)(input_of(a)), ya)
    given = b.state_dict()
    call = compiled(lambda x: torch.func.functional_call(a, given, x))
    torch.testing.assert_close(call(input_of(a)), yb)
    a.load_state_dict(given)
    torch.testing.assert_close(compiled(a)(input_of(a)), yb)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("form", [form for form in FORMS if form[0] is not None], ids=str)
def test_a_part_of_another_state_meets_the_rest_of_this_one(form, make):
    a, b, _, _ = two(make, form)
    mixed = copy.deepcopy(a)
    mixed.scale.copy_(b.scale)
    got = torch.func.functional_call(a, {"scale": b.scale}, input_of(a))
    assert torch.equal(got, mixed(input_of(a)))


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_stacked_states_under_vmap(form, make):
    a, b, ya, yb = two(make, form)
    states = {name: torch.stack([t, b.state_dict()[name]]) for name, t in a.state_dict().items()}
    x = input_of(a)
    got = torch.func.vmap(lambda state: torch.func.functional_call(a, state, x))(states)
    torch.testing.assert_close(got, torch.stack([ya, yb]))


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
    "torch.save": lambda layer: torch.load(saved(layer), weights_only=False),
}


def buffers(layer):
    """What the layer holds, the expanded copy included."""
    return {name: (buffer.shape, buffer.dtype) for name, buffer in layer.named_buffers()}


def saved(layer):
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    return file


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_copy_is_of_what_is_stored_now(form, make, how):
    a, b, _, yb = two(make, form)
    in_place(a, b)
    again = COPIES[how](a)
    assert torch.equal(again(input_of(a)), yb)
    assert again.settings() == b.settings() and buffers(again) == buffers(b)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_layers_of_inference_mode_are_as_others(form, make):
    state, expected = make(*form).state_dict(), make(*form)(input_of(make(*form)))
    with torch.inference_mode():
        made = make(*form)
        loaded = type(made).from_settings(made.settings())
        loaded.load_state_dict({name: tensor.clone() for name, tensor in state.items()}, assign=True)
        cast = copy.deepcopy(made).double().float()
    for layer in (made, loaded, cast):
        assert torch.equal(layer(input_of(layer)), expected)
        assert not any(buffer.is_inference() for buffer in layer.buffers())


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_shapes_alone(form, make):
    layer = make(*form)
    x, shape = input_of(layer), layer(input_of(layer)).shape
    meta = copy.deepcopy(layer).to("meta")
    assert meta(x.to("meta")).shape == shape and meta(x.to("meta")).is_meta
    with torch.device("meta"):
        empty = type(layer).from_settings(layer.settings())
    assert empty(x.to("meta")).shape == shape
    empty.to_empty(device="cpu").load_state_dict(layer.state_dict())
    assert torch.equal(empty(x), layer(x))
    from torch._subclasses.fake_tensor import FakeTensorMode

    mode = FakeTensorMode()
    fake = copy.deepcopy(layer)._apply(mode.from_tensor)
    with mode:
        assert fake(mode.from_tensor(x)).shape == shape


@pytest.mark.parametrize("form", COMPILED, ids=str)
def test_exported(form):
    layer = linear(*form)
    x = input_of(layer)
    for strict in (False, True):
        torch.testing.assert_close(torch.export.export(layer, (x,), strict=strict).module()(x), layer(x))


def test_a_stored_weight_that_was_spoiled_is_refused_when_it_is_used():
    layer = linear(8, "unstructured", "bitmask")
    layer.bitmap.zero_()
    with pytest.raises(InputError, match="bitmap marks 0 blocks"):
        layer(input_of(layer))


SPOILED = {
    "a value that no quantizer gives": (8, "unstructured", "bitmask", "values", -128, "1 of its values are -128"),
    "of 16 bits": (16, "unstructured", "dense", "values", -(2**15), "1 of its values are -32768"),
    "of 4 bits": (4, "unstructured", "dense", "values", 0x18, "1 of its values are -8"),
    "a scale of zero": (
        8,
        "unstructured",
        "dense",
        "scale",
        0.0,
        "scale holds values that are not finite and positive",
    ),
    "a negative scale": (8, "4x4", "block_sparse", "scale", -1.0, "scale holds values that are not finite"),
    "a scale of NaN": (4, "unstructured", "dense", "scale", float("nan"), "scale holds values that are not finite"),
}


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("case", SPOILED)
def test_contents_that_pack_never_writes_are_refused_on_load(case, make):
    *form, name, value, why = SPOILED[case]
    layer = make(*form)
    state = {key: tensor.clone() for key, tensor in layer.state_dict().items()}
    state[name].view(-1)[0] = value
    with pytest.raises(InputError, match=why):
        type(layer).from_settings(layer.settings()).load_state_dict(state)


@pytest.mark.parametrize(
    "form", [(8, "unstructured", "dense"), (4, "unstructured", "dense"), (8, "2:4", "semi_structured")]
)
def test_more_weights_than_are_said_to_be_kept_are_refused(form):
    layer = linear(*form)
    settings = copy.deepcopy(layer.settings())
    settings["weight"]["kept_weights"] -= 40
    with pytest.raises(InputError, match=r"of its values are not zero, and it is said to keep 216"):
        PackedLinear.from_settings(settings).load_state_dict(layer.state_dict())


@pytest.mark.parametrize("wrong", [[[0.0] * 32], None, 1.0, "x"])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_what_is_no_tensor_is_refused_as_by_torch(form, wrong):
    with pytest.raises(TypeError):
        linear(*form)(wrong)


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_threads_see_one_layer(form, make):
    a, b, _, yb = two(make, form)
    in_place(a, b)  # So that each call expands for itself.
    x = input_of(a)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(lambda _: a(x), range(8)))
    assert all(torch.equal(y, yb) for y in found)


def test_shared_memory_is_kept(monkeypatch):
    layer = linear(8, "unstructured", "bitmask").share_memory()
    assert all(buffer.is_shared() for buffer in layer.buffers())
    torch.testing.assert_close(layer(input_of(layer)), linear(8, "unstructured", "bitmask")(input_of(layer)))
    # The copy is still current, so that nothing is expanded again.
    monkeypatch.setattr(BitmapWeight, "to_dense", lambda _: pytest.fail("the weight was expanded"))
    layer(input_of(layer))


@pytest.mark.parametrize("cast", [lambda m: m.half(), lambda m: m.to("meta"), lambda m: m.to_empty(device="cpu")])
@pytest.mark.parametrize("make", MAKERS)
def test_layers_that_share_a_weight_share_it_when_they_are_moved(make, cast):
    for form in FORMS:
        first = make(*form)
        second = make(*form)
        for name, buffer in first.named_buffers():
            setattr(second, name, buffer)
        second.expand()
        model = cast(nn.ModuleList([first, second]))
        for name in first.state_dict():
            assert model[0].get_buffer(name) is model[1].get_buffer(name), (form, name)


def test_layers_that_have_parted_are_moved_apart():
    first, second = linear(None, "unstructured", "dense"), linear(None, "unstructured", "dense")
    second.values = first.values
    first.half()
    first.values.zero_()
    second.half()
    assert second.values.any() and not first.values.any()


@pytest.mark.parametrize("make", MAKERS)
def test_a_layer_whose_tensors_were_emptied_is_what_it_loads(make):
    for form in FORMS:
        layer = make(*form)
        x, state = input_of(layer), {name: tensor.clone() for name, tensor in layer.state_dict().items()}
        expected = layer(x)
        for assign in (False, True):
            emptied = layer.to("meta").to_empty(device="cpu")
            emptied.load_state_dict(state, assign=assign)
            assert torch.equal(emptied(x), expected), form
