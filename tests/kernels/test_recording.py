"""A packed layer's further calls in native code: what any call gives, for whatever input comes next."""

import pytest
import torch

from sparseq_kernels import Repeated, call, use_backend
from sparseq_kernels.backends import runnable
from sparseq_kernels.cpu import int8_matmul

pytestmark = pytest.mark.skipif("native" not in runnable(), reason="there is no native code here")


@pytest.fixture(autouse=True)
def natively(monkeypatch):
    """The native product, also on a machine where torch's is the faster."""
    monkeypatch.setattr(int8_matmul, "_why_not_this_processor", lambda: "it is left out of this test")
    with use_backend("native"):
        yield


def constants(N, K, bias=True):
    weight = torch.randint(-127, 128, (N, K), dtype=torch.int8)
    return weight, torch.rand(N), torch.randn(N) if bias else None, None, "none", None, None


def recorded(run):
    return len(run._recorded.recordings)


@pytest.mark.parametrize("shape", [(1, 17), (33, 17), (2, 5, 17), (17,), (0, 17), (2, 0, 17)])
@pytest.mark.parametrize("bias", [False, True])
def test_a_recorded_call_gives_what_the_op_gives(shape, bias):
    run, given = Repeated(), constants(6, 17, bias)
    for _ in range(3):
        x = torch.randn(shape)
        y = run("int8_linear", x, *given)
        assert torch.equal(y, call("int8_linear", x, *given)) and y.shape == (*shape[:-1], 6)
    assert recorded(run) == 1


def test_no_result_is_given_twice():
    run, given, x = Repeated(), constants(6, 17), torch.randn(3, 17)
    results = [run("int8_linear", x, *given) for _ in range(3)]
    results[2].zero_()
    assert torch.equal(results[0], results[1]) and results[0].ne(0).any()


OTHERS = {
    "with gaps": lambda x: torch.randn(3, 34)[:, ::2],
    "transposed": lambda x: torch.randn(17, 3).t(),
    "negative by its view": lambda x: torch._neg_view(x),
    "not finite": lambda x: x.index_fill(0, torch.tensor([1]), float("inf")),
    "fp64": lambda x: x.double(),
    "bf16": lambda x: x.bfloat16(),
    "more rows": lambda x: torch.randn(5, 17),
}


@pytest.mark.parametrize("other", OTHERS)
def test_after_a_recording_any_input_may_come(other):
    run, given, x = Repeated(), constants(6, 17), torch.randn(3, 17)
    run("int8_linear", x, *given)
    x = OTHERS[other](x)
    for _ in range(2):
        found, expected = run("int8_linear", x, *given), call("int8_linear", x, *given)
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)


def test_constants_that_changed_in_place_or_are_others():
    run, given, x = Repeated(), constants(6, 17), torch.randn(3, 17)
    run("int8_linear", x, *given)
    given[0].neg_()
    given[1].mul_(2)
    assert torch.equal(run("int8_linear", x, *given), call("int8_linear", x, *given))
    other = constants(9, 17)
    assert torch.equal(run("int8_linear", x, *other), call("int8_linear", x, *other))


def test_torchs_product_is_taken_as_soon_as_it_is_the_faster(monkeypatch):
    run, given, x = Repeated(), constants(6, 17), torch.randn(3, 17)
    run("int8_linear", x, *given)
    assert recorded(run) == 1
    taken = []
    monkeypatch.setattr(int8_matmul, "_why_not_this_processor", lambda: None)
    product = {"int_mm": lambda x, w: taken.append(1) or int8_matmul.WAYS["fp32"](x, w)}
    monkeypatch.setattr(int8_matmul, "WAYS", int8_matmul.WAYS | product)
    with torch.backends.mkldnn.flags(enabled=True):
        y = run("int8_linear", x, *given)
    assert taken and torch.equal(y, call("int8_linear", x, *given))


@pytest.mark.parametrize("setting", ["relu", "static", "out_dtype", "output_scale", "fp64 scale", "weight with gaps"])
def test_what_is_more_than_the_product_is_not_recorded(setting):
    weight, scale, bias, *_ = constants(6, 17)
    given = {
        "relu": (weight, scale, bias, None, "relu", None, None),
        "static": (weight, scale, bias, torch.ones(1), "none", None, None),
        "out_dtype": (weight, scale, bias, None, "none", torch.bfloat16, None),
        "output_scale": (weight, scale, bias, None, "none", None, torch.ones(1)),
        "fp64 scale": (weight, scale.double(), bias, None, "none", None, None),
        "weight with gaps": (weight.repeat(1, 2)[:, ::2], scale, bias, None, "none", None, None),
    }[setting]
    run, x = Repeated(), torch.randn(3, 17)
    for _ in range(2):
        assert torch.equal(run("int8_linear", x, *given), call("int8_linear", x, *given))
    assert recorded(run) == 0


@pytest.mark.parametrize("name", ["cpu", "reference"])
def test_another_backend_is_followed(name):
    run, given, x = Repeated(), constants(6, 17), torch.randn(3, 17)
    run("int8_linear", x, *given)
    with use_backend(name):
        expected = call("int8_linear", x, *given)
        assert torch.equal(run("int8_linear", x, *given), expected)
