"""The CPU's int8 product: exact for every int8 value in every way, and done in a way that is exact on this machine."""

import os
import subprocess
import sys
import warnings

import pytest
import torch
from samples import call

from sparseq_kernels import InputError, use_backend
from sparseq_kernels.backends import runnable
from sparseq_kernels.cpu import int8_linear, int8_matmul
from sparseq_kernels.cpu.int8_matmul import WAYS, way, why_not_int_mm
from sparseq_kernels.numerics import MAX_INT8_DEPTH

CPU_BACKENDS = [name for name in runnable() if name in ("cpu", "native")]
# Those that this machine has: `_int_mm` where it is trusted alone, for elsewhere it may be wrong.
HERE = ["fp32", *(["native"] if "native" in runnable() else []), *(["int_mm"] if why_not_int_mm() is None else [])]
SIZES = (0, 1, 3, 5, 7, 17, 63, 64, 65, 257, 577)
EXTREMES = (127, -127, -128)


@pytest.fixture(autouse=True)
def asked_anew():
    """What is asked of the machine once, and the warnings that come once, belong to one test."""
    yield
    int8_matmul.why_not_this_processor.cache_clear()
    int8_matmul._warn_if_slow.cache_clear()


def filled(rows, columns, pattern):
    """int8 [rows, columns]: random, one value, or values whose signs change by column or by row."""
    if pattern == "random":
        return torch.randint(-128, 128, (rows, columns), dtype=torch.int8)
    if isinstance(pattern, int):
        return torch.full((rows, columns), pattern, dtype=torch.int8)
    places = torch.arange(columns) if pattern == "by column" else torch.arange(rows).unsqueeze(1)
    return torch.where(places % 2 == 0, 127, -128).to(torch.int8).expand(rows, columns).contiguous()


def exact(x, w):
    return (x.double() @ w.double().t()).to(torch.int32)


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("K", SIZES)
def test_every_way_is_exact_for_every_shape(name, K):
    torch.manual_seed(K)
    for M in SIZES:
        x = filled(M, K, "random")
        for N in SIZES:
            w = filled(N, K, "random")
            sums = WAYS[name](x, w)
            assert sums.dtype == torch.int32 and torch.equal(sums, exact(x, w)), (M, N, K)


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("pattern", [*EXTREMES, "by column", "by row"])
def test_every_way_is_exact_at_the_extremes(name, pattern):
    for M, K in ((1, 63), (5, 577), (65, 1025), (3, 4097), (13, 2048)):
        x = filled(M, K, pattern)
        for other in (*EXTREMES, "by column", "by row"):
            w = filled(7, K, other)
            assert torch.equal(WAYS[name](x, w), exact(x, w)), (M, K, other)


@pytest.mark.parametrize("name", HERE)
def test_the_deepest_sum_fits(name):
    x = torch.full((2, MAX_INT8_DEPTH), -128, dtype=torch.int8)
    assert WAYS[name](x, x).eq(128 * 128 * MAX_INT8_DEPTH).all() and 128 * 128 * (MAX_INT8_DEPTH + 1) > 2**31 - 1
    with pytest.raises(InputError, match="could overflow"):
        int8_matmul.int8_matmul(x.repeat(1, 2), x.repeat(1, 2), native=name == "native")


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("threads", [1, 2])
def test_every_way_takes_any_layout_and_threads(name, threads):
    """What is read lies between other values, which must have no part in it: a view's ends are not the storage's."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        x, w = filled(203, 85, 127)[1:-1, 1:-1], filled(85, 131, -128).t()[1:-1, 1:-1]
        assert torch.equal(WAYS[name](x, w), exact(x, w))
        x, w = filled(1, 131, "random").t()[:, :1], filled(131, 1, "random")
        assert torch.equal(WAYS[name](x, w), exact(x, w))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("name", CPU_BACKENDS)
def test_the_layer_of_every_way_is_the_same(name, monkeypatch):
    """One pass of native code, or a product and a pass after it: the same, to the bit."""
    x, w, scale, bias = torch.randn(2, 13, 97), filled(66, 97, "random"), torch.rand(66), torch.randn(66)
    levels, rows = torch.ops.sparseq.quantize_rows(x)
    cases = [(x, w, scale, b, s) for b in (bias, None) for s in (None, torch.tensor([0.02]))]
    cases += [(levels, w, scale, bias, rows.flatten())]
    for args in cases:
        results = []
        for forced in HERE:
            if forced == "native" and name == "cpu":
                continue
            monkeypatch.setattr(int8_matmul, "way", lambda native, forced=forced: forced)
            monkeypatch.setattr(int8_linear, "way", lambda native, forced=forced: forced)
            with use_backend(name):
                results.append(call("int8_linear", *args, "gelu", None, None))
        assert results and all(torch.equal(result, results[0]) for result in results)


def test_in_reduced_precision_the_fp32_way_stays_exact():
    x, w = filled(33, 1500, 127), filled(17, 1500, -127)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(WAYS["fp32"](x, w), exact(x, w))
    finally:
        torch.set_float32_matmul_precision(before)


def saturating(x, w, shift):
    """int8 [M, K] times [K, N] as by vpmaddubsw: two neighbouring products are added in int16. One operand is unsigned:
    x + shift, which is taken back at the end; or with shift 0 x itself, for a product that adds in int16 alone."""
    odd = x.shape[1] % 2
    w = torch.nn.functional.pad(w.to(torch.int32), (0, 0, 0, odd))
    x = torch.nn.functional.pad(x.to(torch.int32) + shift, (0, odd))
    pairs = x[:, ::2, None] * w[::2] + x[:, 1::2, None] * w[1::2]
    return (pairs.clamp(-(2**15), 2**15 - 1).sum(1) - shift * w.sum(0)).to(torch.int32)


@pytest.mark.parametrize("shift", [0, 128])
def test_a_product_that_saturates_is_found_and_not_used(shift, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    monkeypatch.setattr(int8_matmul, "int_mm", lambda x, w: saturating(x, w, shift))
    int8_matmul.why_not_this_processor.cache_clear()
    assert not int8_matmul.int_mm_is_exact()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert way(native=False) == "fp32" and way(native=False) == "fp32"
    [warning] = caught
    assert "wrong here: oneDNN saturates" in str(warning.message)
    if "native" in HERE:
        assert way(native=True) == "native"


def test_a_product_that_is_exact_is_used_and_tried_once(monkeypatch):
    calls = []
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: True)
    monkeypatch.setattr(int8_matmul, "int_mm", lambda x, w: calls.append(1) or exact(x, w.t()))
    int8_matmul.why_not_this_processor.cache_clear()
    assert way(native=True) == "int_mm"
    tried = len(calls)
    assert tried > 8 and way(native=False) == "int_mm" and len(calls) == tried


def test_without_vnni_nothing_is_tried(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    monkeypatch.setattr(int8_matmul, "int_mm", lambda x, w: pytest.fail("it is a plain loop"))
    int8_matmul.why_not_this_processor.cache_clear()
    assert way(native=False) == "fp32"
    assert "AVX-512 VNNI" in why_not_int_mm()


@pytest.mark.parametrize("name", CPU_BACKENDS)
def test_onednn_can_be_turned_off_at_any_time(name, monkeypatch):
    monkeypatch.setattr(int8_matmul, "int_mm", lambda x, w: pytest.fail("it is a plain loop"))
    x, w, one = filled(9, 65, 127), filled(5, 65, 127), torch.ones(1)
    with torch.backends.mkldnn.flags(enabled=False), use_backend(name):
        assert "turned off" in why_not_int_mm()
        y = torch.ops.sparseq.int8_linear(x, w, torch.ones(5), None, one)
        assert torch.equal(y, exact(x, w).float())
        assert way(native=name == "native") == ("native" if name == "native" else "fp32")


@pytest.mark.parametrize("instructions,warned", [("portable", True), ("avx2", False), ("avx512", False)])
def test_where_int8_may_not_pay_it_is_said_once(instructions, warned, monkeypatch):
    monkeypatch.setattr(int8_matmul, "why_not_int_mm", lambda: "oneDNN is turned off")
    monkeypatch.setattr(int8_matmul, "instruction_set", lambda: instructions)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            way(native=True)
    assert [str(w.message).partition(":")[0] for w in caught] == [
        "int8 layers may be slower than fp32 ones here, though their results are exact"
    ] * warned


HELD_TO_AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2", "DNNL_MAX_CPU_ISA": "AVX2"}
LAYER = """
import sys, torch, sparseq_kernels
for name in sys.argv[1:]:
    sparseq_kernels.set_backend(name)
    for M, K, N in ((1, 64, 64), (5, 257, 17), (128, 768, 64)):
        x, w = torch.full((M, K), 127, dtype=torch.int8), torch.full((N, K), -127, dtype=torch.int8)
        w[::2] = 127
        y = torch.ops.sparseq.int8_linear(x, w, torch.ones(N), None, torch.ones(1))
        assert torch.equal(y, (x.double() @ w.double().t()).float()), (M, K, N)
    print(sparseq_kernels.backend())
"""


def test_held_to_older_instructions_it_is_exact():
    """In one process for all backends: torch reads what holds it when it is imported."""
    env = os.environ | HELD_TO_AVX2 | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-c", LAYER, *CPU_BACKENDS]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.stdout.split() == list(CPU_BACKENDS), done.stderr
