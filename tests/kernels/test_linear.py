"""A linear layer in one call of native code: the op's bits, for every shape, instruction set and number of threads."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from cpu_backends import NATIVE

from sparseq_kernels import InputError, int8_linear, quantize_rows, set_instruction_set, use_backend
from sparseq_kernels.cpu import native_weight
from sparseq_kernels.cpu.linear import PACKED_FROM, NativeLinear, packed_product
from sparseq_kernels.encoder import EncoderLinear

pytestmark = [
    pytest.mark.skipif(not NATIVE, reason="there is no native code here"),
    pytest.mark.usefixtures("every_set", "threads"),
]


def made(N, K, density=1.0, bias=True, static=False, block=(4, 4)):
    random = torch.Generator().manual_seed(N * K)
    weight, scale = quantize_rows(torch.randn(N, K, generator=random))
    rows, columns = block
    kept = torch.rand(-(-N // rows), -(-K // columns), generator=random) < density
    weight = weight * kept.repeat_interleave(rows, 0).repeat_interleave(columns, 1)[:N, :K]
    return EncoderLinear(
        weight,
        scale,
        torch.randn(N, generator=random) if bias else None,
        torch.tensor([0.03]) if static else None,
    )


def by_op(x, linear):
    with use_backend("reference"):
        return int8_linear(x, linear.weight, linear.weight_scale, linear.bias, linear.input_scale, linear.activation)


def check(linear, x, threads=(1,)):
    """The reference's bits, whatever the number of threads; NaN where it has NaN."""
    right, layer = by_op(x, linear), NativeLinear(linear)
    for count in threads:
        torch.set_num_threads(count)
        found = layer(x)
        assert found.shape == right.shape and torch.equal(found.isnan(), right.isnan())
        kept = ~right.isnan()
        assert torch.equal(found[kept].view(torch.int32), right[kept].view(torch.int32)), (x.shape, count)


SIZES = [(1, 1), (2, 768), (3, 5), (16, 4), (17, 33), (64, 128), (65, 130), (130, 31), (67, 300)]


@pytest.mark.parametrize("N,K", SIZES)
@pytest.mark.parametrize("density", [1.0, 0.3, 0.0])
def test_it_gives_the_bits_of_the_op(N, K, density):
    linear = made(N, K, density)
    for M in (0, 1, 2, 3, 4, 5, 33, 200):
        check(linear, torch.randn(M, K))


@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("settings", [{"bias": False}, {"static": True}, {"bias": False, "static": True}], ids=str)
def test_other_layers(settings, density):
    linear = made(40, 70, density, **settings)
    for M in (1, 4, 9, 100):
        check(linear, 5 * torch.randn(M, 70))


@pytest.mark.parametrize("density", [1.0, 0.3])
def test_work_that_threads_share(density):
    for M, K, N in ((1, 1024, 600), (20, 512, 66), (300, 160, 20), (97, 96, 80), (3, 4000, 70), (1000, 300, 2)):
        check(made(N, K, density), torch.randn(M, K), threads=(1, 2, 3))


@pytest.mark.parametrize("density", [1.0, 0.3])
def test_rows_of_a_wide_input(density):
    """Of which no whole part stays in a cache."""
    linear = made(64, 3072, density)
    for M in (0, 32, 64, 130):
        check(linear, torch.randn(M, 3072), threads=(1, 2))


@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize("M,K,N", [(1, 5, 3), (4, 70, 40), (33, 70, 40), (200, 31, 130), (1000, 300, 2)])
def test_a_product_of_rows_that_are_quantized_already(M, K, N, density):
    linear, x = made(N, K, density), torch.randn(M, K)
    q, scale = quantize_rows(x)
    q[0, 0] = -128
    with use_backend("reference"):
        expected = int8_linear(q, linear.weight, linear.weight_scale, linear.bias, scale)
    for count in (1, 2):
        torch.set_num_threads(count)
        assert torch.equal(packed_product(q, scale, linear.weight, linear.weight_scale, linear.bias), expected)
    one = packed_product(q, scale[:1], linear.weight, linear.weight_scale, None)
    assert torch.equal(one, packed_product(q, scale[:1].expand(M), linear.weight, linear.weight_scale, None))


@pytest.mark.parametrize("M", [PACKED_FROM - 1, PACKED_FROM, 1000])
@pytest.mark.parametrize("density", [1.0, 0.3])
def test_an_op_of_many_rows(M, density):
    linear, x = made(50, 70, density), torch.randn(2, M // 2, 70)
    q, scale = quantize_rows(x)
    for given, by in ((x, None), (x.double().float().transpose(0, 1), None), (q, scale), (x, torch.tensor([0.02]))):
        one = replace(linear, input_scale=by)
        assert torch.equal(int8_linear(given, one.weight, one.weight_scale, one.bias, by), by_op(given, one))


def test_no_rows_are_not_read():
    check(made(64, 100_000, 0.2), torch.empty(0, 100_000))


def test_another_instruction_set_in_the_midst_of_packing(monkeypatch):
    """One set packs and multiplies, whatever another thread sets meanwhile."""
    linear, x = made(20, 30), torch.randn(3, 30)
    right, pack = by_op(x, linear), native_weight.NativeWeight._packed

    def setting(self, weight):
        set_instruction_set("portable")
        return pack(self, weight)

    monkeypatch.setattr(native_weight.NativeWeight, "_packed", setting)
    assert torch.equal(NativeLinear(linear)(x), right)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("density", [1.0, 0.3])
def test_rows_that_are_zero_tiny_huge_or_not_finite(density, static):
    linear = made(20, 24, density, static=static)
    x = torch.randn(9, 24)
    x[0], x[1], x[2] = 0, 1e-38, 3e38
    x[3, 5], x[4, 0], x[5, -1] = float("nan"), float("inf"), -float("inf")
    x[6] = torch.tensor([0x7F800001], dtype=torch.int32).view(torch.float32)
    for M in (9, 7, 4):
        check(linear, x[:M])


@pytest.mark.parametrize("density", [1.0, 0.3])
def test_the_largest_integers_do_not_saturate(density):
    linear = made(30, 200, density)
    for value in (-128, 127):
        weight = torch.where(linear.weight != 0, value, 0).to(torch.int8)
        for sign in (1, -1):
            check(replace(linear, weight=weight), sign * torch.ones(6, 200))


def test_more_dimensions_and_other_strides():
    linear = made(10, 24)
    layer, x = NativeLinear(linear), torch.randn(6, 3, 24)
    assert torch.equal(layer(x), by_op(x, linear))
    assert torch.equal(layer(x[:, 0]), by_op(x[:, 0], linear))
    assert torch.equal(layer(x[0, 0]), by_op(x[0, 0], linear))
    assert torch.equal(layer(x.transpose(0, 1)), by_op(x.transpose(0, 1), linear))


@pytest.mark.parametrize("block", [(4, 4), (1, 4), (4, 1), (8, 4), (32, 32)], ids=str)
def test_blocks_and_panels_give_the_same_bits(block, monkeypatch):
    linear, x = made(70, 90, 0.4, block=block), torch.randn(130, 90)
    monkeypatch.setattr(native_weight, "BLOCKS_UP_TO", -1.0)
    expected = NativeLinear(linear)(x)
    monkeypatch.setattr(native_weight, "BLOCKS_UP_TO", 1.0)
    layer = NativeLinear(linear)
    assert layer.weight.in_blocks
    # Few rows, half a vector of them, and each number of vectors have ways of their own.
    for rows in (*range(1, 19), 31, 32, 33, 47, 48, 49, 63, 64, 65, 130):
        assert torch.equal(layer(x[:rows]), expected[:rows]), f"{rows} rows"


def test_activations_are_those_of_the_op():
    linear = made(33, 20)
    x = torch.randn(50, 20)
    check(replace(linear, activation="relu"), x)
    gelu = replace(linear, activation="gelu")
    assert (NativeLinear(gelu)(x) - by_op(x, gelu)).abs().max() < 1e-5


def test_threads_that_call_at_once():
    layer, xs = NativeLinear(made(64, 96)), [torch.randn(40, 96) for _ in range(4)]
    right = [layer(x) for x in xs]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda x: [layer(x) for _ in range(10)], xs))
    assert all(torch.equal(one, expected) for several, expected in zip(found, right, strict=True) for one in several)


@pytest.mark.parametrize(
    "change,sentence",
    [
        (lambda one: replace(one, weight=one.weight.int()), "linear must have an int8 weight"),
        (lambda one: replace(one, weight_scale=torch.ones(3)), "linear must have a scale and a bias"),
        (lambda one: replace(one, activation="silu"), "one of the activations none, relu, gelu, not 'silu'"),
        (lambda one: replace(one, weight=one.weight[:0], weight_scale=one.weight_scale[:0]), "inputs and outputs, not"),
        (lambda one: replace(one, input_scale=torch.zeros(1)), "positive static scale"),
    ],
)
def test_layers_that_it_cannot_run_are_refused(change, sentence):
    with pytest.raises(InputError, match=sentence):
        NativeLinear(change(made(8, 8)))
