"""The CPU's shortcut for a packed layer's call: it takes the common case, and gives what the usual way gives."""

import gc
import sys
import weakref

import pytest
import torch

from sparseq.nn import QuantSparseLinear
from sparseq_kernels import InputError, instruction_set, int8_linear, quantize_rows, use_backend
from sparseq_kernels.backends import runnable
from sparseq_kernels.cpu import int8_linear as cpu
from sparseq_kernels.cpu import int8_matmul
from sparseq_kernels.registry import OPS, find_shortcut

pytestmark = pytest.mark.skipif("native" not in runnable(), reason="there is no native code here")


@pytest.fixture(autouse=True, params=["native", "int_mm"])
def product(request, monkeypatch):
    """Each product, whichever is the faster here. torch's is exact in what is tried here, where it is a plain loop."""
    reason = None if request.param == "int_mm" else "it is left out of this test"
    monkeypatch.setattr(int8_matmul, "why_not_this_processor", lambda: reason)
    if request.param == "native":
        monkeypatch.setattr(int8_matmul, "int_mm", unexpected)
    if request.param == "int_mm" and not int8_matmul.int_mm_is_exact():
        pytest.skip("torch's int8 product saturates here")
    with use_backend("native"), torch.backends.mkldnn.flags(enabled=True):
        yield request.param


def unexpected(*_):
    pytest.fail("torch's product was taken")


def constants(N, K, bias=True):
    weight = torch.randint(-127, 128, (N, K), dtype=torch.int8)
    return weight, torch.rand(N), torch.randn(N) if bias else None


def by_shortcut(x, *args):
    """What the shortcut gives: a result, or None if it does not take the call."""
    shortcut = find_shortcut("native", "int8_linear")
    assert shortcut is not None
    return shortcut(OPS["int8_linear"].run, *OPS["int8_linear"].complete((x, *args)))


def usual(x, *args):
    return OPS["int8_linear"].run(x, *args)


@pytest.mark.parametrize("shape", [(1, 17), (33, 17), (2, 5, 17), (17,), (0, 17), (2, 0, 17)])
@pytest.mark.parametrize("bias", [False, True])
def test_it_gives_what_the_usual_way_gives(shape, bias):
    given, x = constants(6, 17, bias), torch.randn(shape)
    found = by_shortcut(x, *given)
    assert found is not None and found.shape == (*shape[:-1], 6)
    assert torch.equal(found, usual(x, *given)) and torch.equal(found, int8_linear(x, *given))


@pytest.mark.parametrize("shape", [(1, 17), (33, 17), (2, 5, 17), (17,), (0, 17)])
@pytest.mark.parametrize("activation", ["none", "relu", "gelu", "gelu_tanh"])
def test_rows_that_were_quantized_before_give_what_their_floats_give(shape, activation):
    given, x = constants(6, 17), torch.randn(shape)
    q, rows = quantize_rows(x)
    found = by_shortcut(q, *given, rows, activation)
    assert found is not None and found.shape == (*shape[:-1], 6) and found.dtype == torch.float32
    assert torch.equal(found, usual(q, *given, rows, activation))
    assert torch.equal(found, by_shortcut(x, *given, None, activation, torch.float32))


SCALES = {
    "one for all rows": lambda rows: rows[:1].clone(),
    "fp64": lambda rows: rows.double(),
    "with gaps": lambda rows: rows.repeat_interleave(2)[::2],
    "a column": lambda rows: rows.unsqueeze(-1),
    "negated lazily": lambda rows: torch._neg_view(-rows),
}


@pytest.mark.parametrize("name", SCALES)
def test_other_scales_of_rows_take_the_usual_way(name):
    given, (q, rows) = constants(6, 17), quantize_rows(torch.randn(3, 17))
    scale = SCALES[name](rows)
    assert by_shortcut(q, *given, scale) is None
    assert torch.equal(int8_linear(q, *given, scale), usual(q, *given, scale.resolve_neg()))


@pytest.mark.parametrize(("N", "K"), [(1, 17), (6, 1), (1, 1), (1, 64)])
@pytest.mark.parametrize("M", [0, 1, 3])
def test_strides_of_a_side_of_one_mean_nothing(M, N, K):
    """torch calls such a tensor contiguous, whatever its strides, and oneDNN misreads them."""
    weight, scale, bias = constants(N, K)
    weight = weight.as_strided((N, K), (K + 5 if N == 1 else K, 7 if K == 1 else 1))
    x = torch.randn(M, K)
    found = by_shortcut(x, weight, scale, bias)
    assert weight.is_contiguous() and torch.equal(found, usual(x, weight.clone(), scale, bias))


def test_no_result_is_given_twice():
    given, x = constants(6, 17), torch.randn(3, 17)
    results = [int8_linear(x, *given) for _ in range(3)]
    results[2].zero_()
    assert torch.equal(results[0], results[1]) and results[0].ne(0).any()


INPUTS = {
    "with gaps": lambda x: torch.randn(3, 34)[:, ::2],
    "transposed": lambda x: torch.randn(17, 3).t(),
    "negated lazily": lambda x: torch._neg_view(x),
    "zero lazily": lambda x: torch._efficientzerotensor(x.shape),
    "not finite": lambda x: x.index_fill(0, torch.tensor([1]), float("inf")),
    "fp64": lambda x: x.double(),
    "bf16": lambda x: x.bfloat16(),
    "a parameter": lambda x: torch.nn.Parameter(x),
}


@pytest.mark.parametrize("name", INPUTS)
def test_any_input_may_come(name):
    given, x = constants(6, 17), INPUTS[name](torch.randn(3, 17))
    plain = torch.zeros(x.shape) if name == "zero lazily" else x.detach().resolve_neg()
    found, expected = int8_linear(x, *given), usual(plain, *given)
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    "case",
    [
        "static", "out_dtype", "another activation", "output_scale", "fp64 scale", "weight with gaps", "negated bias",
        "sparse weight", "scalar",
        "bias of another length", "weight of another depth", "scale of another length", "meta weight",
    ],
)  # fmt: skip
def test_it_leaves_other_calls_to_the_usual_way(case):
    weight, scale, bias = constants(6, 17)
    x = torch.randn(3, 17)
    args = {
        "static": (weight, scale, bias, torch.ones(1)),
        "out_dtype": (weight, scale, bias, None, "none", torch.bfloat16),
        "output_scale": (weight, scale, bias, None, "none", None, torch.ones(1)),
        "another activation": (weight, scale, bias, None, "tanh"),
        "fp64 scale": (weight, scale.double(), bias),
        "weight with gaps": (weight.repeat(1, 2)[:, ::2], scale, bias),
        "negated bias": (weight, scale, torch._neg_view(bias)),
        "sparse weight": (weight.to_sparse(), scale, bias),
        "bias of another length": (weight, scale, bias[:5].contiguous()),
        "weight of another depth": (weight[:, :16].contiguous(), scale, bias),
        "scale of another length": (weight, scale[:1].clone(), bias),
        "meta weight": (weight.to("meta"), scale, bias),
        "scalar": (weight, scale, bias),
    }[case]
    x = torch.ones(()) if case == "scalar" else x
    assert by_shortcut(x, *args) is None
    if case in ("sparse weight", "meta weight", "scalar") or "another" in case:
        with pytest.raises(InputError):
            int8_linear(x, *args)
    elif case != "negated bias":
        assert torch.equal(int8_linear(x, *args), usual(x, *args))
    else:
        assert torch.equal(int8_linear(x, *args), usual(x, weight, scale, -bias))


def test_constants_that_changed_in_place():
    given, x = constants(6, 17), torch.randn(3, 17)
    int8_linear(x, *given)
    given[0].neg_()
    given[1].mul_(2)
    assert torch.equal(int8_linear(x, *given), usual(x, *given))


CHANGES = {
    "transposed": lambda weight, scale, bias: weight.t_(),
    "the weight's memory": lambda weight, scale, bias: weight.set_(-weight),
    "the scale's memory": lambda weight, scale, bias: scale.set_(3 * scale),
    "the scale's dtype": lambda weight, scale, bias: setattr(scale, "data", scale.double()),
    "the bias's memory": lambda weight, scale, bias: setattr(bias, "data", bias + 1),
    "fewer rows": lambda *given: [setattr(one, "data", one[:9]) for one in given],
}


@pytest.mark.parametrize("name", CHANGES)
def test_constants_that_are_changed_under_it(name):
    """The same tensor objects, with other memory or another layout."""
    given, x = constants(17, 17), torch.randn(3, 17)
    int8_linear(x, *given)
    CHANGES[name](*given)
    found = int8_linear(x, *given)
    assert torch.equal(found, usual(x, *given)) and found.shape == (3, len(given[0]))


WRONG = {
    "a short scale": lambda weight, scale, bias: setattr(scale, "data", scale[:5]),
    "an int32 scale": lambda weight, scale, bias: setattr(scale, "data", scale.view(torch.int32)),
    "a uint8 weight": lambda weight, scale, bias: setattr(weight, "data", weight.view(torch.uint8)),
    "a weight of three dimensions": lambda weight, scale, bias: setattr(weight, "data", weight[None]),
    "a short bias": lambda weight, scale, bias: setattr(bias, "data", bias[:5]),
}


@pytest.mark.parametrize("name", WRONG)
def test_constants_that_no_longer_fit_are_refused(name):
    """At the same addresses."""
    given, x = constants(17, 17), torch.randn(3, 17)
    int8_linear(x, *given)
    WRONG[name](*given)
    with pytest.raises(InputError):
        int8_linear(x, *given)


def test_a_bias_whose_graph_holds_the_weight_keeps_nothing_alive():
    weight, scale, bias = constants(6, 17)
    bias = bias.requires_grad_() * 1
    bias.grad_fn.metadata["weight"] = weight
    gone = weakref.ref(weight)
    with torch.no_grad():
        int8_linear(torch.randn(3, 17), weight, scale, bias)
    del weight, bias
    gc.collect()
    assert gone() is None


def test_other_constants_with_the_same_weight():
    given, x = constants(6, 17), torch.randn(3, 17)
    for others in (given, (given[0], 2 * given[1], given[2]), (given[0], given[1], None), given):
        assert torch.equal(int8_linear(x, *others), usual(x, *others))


def test_no_weight_is_kept_alive():
    given, x = constants(6, 17), torch.randn(3, 17)
    gone = [weakref.ref(tensor) for tensor in given]
    int8_linear(x, *given)
    del given
    gc.collect()
    assert [ref() for ref in gone] == [None, None, None]


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_another_backend_has_none(name):
    given, x = constants(6, 17), torch.randn(3, 17)
    assert find_shortcut(name, "int8_linear") is None
    with use_backend(name):
        assert torch.equal(int8_linear(x, *given), usual(x, *given))


def test_a_gradient_and_autocast_are_not_lost():
    given, x = constants(6, 17), torch.randn(3, 17, requires_grad=True)
    (grad,) = torch.autograd.grad(int8_linear(x, *given).sum(), x)
    assert grad.abs().sum() > 0
    with torch.autocast("cpu", torch.bfloat16):
        assert int8_linear(x.detach(), *given).dtype == torch.bfloat16


def depth():
    """How many frames lie between a layer's forward, which counts, and the one that called this one's caller."""
    frame, count = sys._getframe(2), 1
    while frame.f_code.co_name != "forward":
        frame, count = frame.f_back, count + 1
    return count


def test_a_packed_layer_that_calls_the_op_gets_to_native_code_in_four_frames(product):
    """From the layer's forward on, which torch calls in two frames of its own."""
    layer, x, depths = QuantSparseLinear(17, 6).eval().pack(), torch.randn(3, 17), []
    layer._native = None
    native = "sparseq_quantize_rows" if product == "int_mm" else "sparseq_quantized_linear"

    class Spy:
        def __getattr__(self, name):
            if name == native:
                depths.append(depth())
            return getattr(library, name)

    library = cpu.compiled.library()
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu.compiled, "library", Spy)
        layer(x)
    assert depths and max(depths) <= 4


@pytest.mark.skipif(instruction_set() == "portable", reason="in portable C every call enters the op")
def test_a_packed_layer_gets_to_native_code_of_its_own_in_four_frames():
    layer, x, depths = QuantSparseLinear(17, 6).eval().pack(), torch.randn(3, 17), []
    with torch.no_grad():
        layer(x)
        packed = layer._native._native
        run = packed._run
        packed._run = lambda *args: (depths.append(depth()), run(*args))[1]
        layer(x)
    assert depths == [4]
