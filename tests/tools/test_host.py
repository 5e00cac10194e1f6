"""What a call costs on the host, by its structure: nothing here depends on how fast the machine is."""

import sys
from collections import Counter

import pytest
import torch
from torch import nn

from sparseq_kernels.triton.runtime.availability import interpreted, why_not

if (reason := why_not()) is not None or interpreted():
    pytest.skip(f"needs a Triton that compiles: {reason or 'this is its interpreter'}", allow_module_level=True)

from triton import knobs
from triton.runtime.jit import JITFunction

from bench import common
from bench.studies import host
from sparseq import pack
from sparseq.nn import QuantSparseLinear
from sparseq_kernels.triton import int8_linear, quantize_rows
from sparseq_kernels.triton.runtime.gemm_config import GemmConfig, use_config
from sparseq_kernels.triton.runtime.launch import launch
from tools.absent_gpu import absent_gpu
from tools.compile_cases import Case
from tools.compile_variants import variants

ROWS = range(1, 65)


@pytest.fixture(autouse=True)
def _own_triton_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "triton"))


def packed(inputs=64, outputs=128):
    return pack(nn.Sequential(QuantSparseLinear(inputs, outputs)))[0]


@pytest.mark.parametrize("M", [5, 700])
def test_the_second_call_goes_around_tritons_own_launch(M, monkeypatch):
    layer, x = packed(), torch.zeros(M, 64, dtype=torch.bfloat16)
    runs = []
    run = JITFunction.run
    monkeypatch.setattr(JITFunction, "run", lambda self, *args, **named: runs.append(self) or run(self, *args, **named))
    with absent_gpu("sm_90") as gpu, torch.inference_mode():
        layer(x)
        assert runs
        first, runs[:] = list(gpu.launches), []
        layer(x)
        # One launch for a quantized input or one for the sums of shared depth, beside the product.
        assert runs == [] and 1 <= len(first) <= 2 and len(gpu.launches) == 2 * len(first)
        again = gpu.launches[len(first) :]
        assert [one.kernel for one in again] == [one.kernel for one in first]
        for one, other in zip(first, again, strict=True):
            assert one.grid == other.grid and one.args.keys() == other.args.keys()
            assert all(other.args[name] == value for name, value in one.args.items() if isinstance(value, int | str))
        # A tensor elsewhere in memory, of the same alignment, is no other kernel's case; one of another alignment is.
        layer(x.clone())
        assert runs == []
        layer(torch.zeros(M * 64 + 1, dtype=torch.bfloat16)[1:].reshape(M, 64))
        assert runs


@pytest.mark.parametrize(("M", "launches"), [(5, 2), (700, 2)])
def test_a_further_call_does_nothing_but_launch(M, launches):
    layer, x = packed(768, 128), torch.zeros(M, 768, dtype=torch.bfloat16)
    called = []

    def note(frame, event, _):
        if event == "call" and frame.f_globals.get("__name__", "").startswith("sparseq"):
            called.append((frame.f_globals["__name__"].rpartition(".")[2], frame.f_code.co_name))

    with absent_gpu("sm_90") as gpu, torch.inference_mode():
        layer(x)
        first = len(gpu.launches)
        sys.setprofile(note)
        try:
            layer(x)
        finally:
            sys.setprofile(None)
    assert len(gpu.launches) == first + launches
    # The config in force is asked for; nothing is validated, no config is chosen, and no backend looked up.
    assert {module for module, _ in called} <= {
        "packed_linear", "int8_linear", "dispatch", "torch_internals", "weight_cache", "launch_cache", "launch",
        "captured_call", "device",
        "availability", "gemm_config",
    }  # fmt: skip
    assert {name for module, name in called if module == "int8_linear"} <= {"int8_linear"}
    assert {name for module, name in called if module == "gemm_config"} <= {"forced_config"}
    assert len(called) <= 12, called


def address(argument):
    """Of what a kernel got: a tensor, a descriptor of one, or an address; None for anything else."""
    argument = getattr(argument, "base", argument)
    return argument.data_ptr() if isinstance(argument, torch.Tensor) else None


@pytest.mark.parametrize("config", [None, GemmConfig(64, 64, 128, 4, 3, descriptors=True)], ids=["rule", "tma"])
@pytest.mark.parametrize("M", [5, 700])
def test_a_further_call_hands_over_the_new_tensors_and_the_same_weights(M, config):
    layer, (x, other) = packed(768, 128), torch.zeros(2, M, 768, dtype=torch.bfloat16)
    with absent_gpu("sm_90") as gpu, torch.inference_mode(), use_config(config):
        results = [layer(x), layer(other)]
        count = len(gpu.launches) // 2
        first, further = gpu.launches[:count], gpu.launches[count:]
    moved = {}
    for one, again in zip(first, further, strict=True):
        assert one.kernel == again.kernel and one.grid == again.grid
        for name, before in one.args.items():
            after = again.args[name]
            if (was := address(before)) is None:
                assert after == before
            else:
                # Wherever the first call's kernels shared a tensor, these share one too.
                now = after if isinstance(after, int) else address(after)
                assert moved.setdefault(was, now) == now
    given = [layer.values, layer.scale, layer.bias]
    assert all(moved[tensor.data_ptr()] == tensor.data_ptr() for tensor in given)
    assert moved[x.data_ptr()] == other.data_ptr() and moved[results[0].data_ptr()] == results[1].data_ptr()
    assert len(set(moved.values())) == len(moved) and all(now % 16 == 0 for now in moved.values())


def test_hooks_of_a_profiler_are_handed_to_every_launch():
    layer, x = packed(), torch.zeros(5, 64, dtype=torch.bfloat16)
    called, launches = [], []

    def launcher(*args):
        metadata, enter, _ = args[6:9]
        launches.append(args)
        if enter is not None:
            enter(metadata)

    with absent_gpu("sm_90") as gpu, torch.inference_mode():
        # Triton's own launcher, which is not here, calls the hooks.
        gpu.launcher_cls = lambda source, metadata: launcher
        layer(x)
        count = len(launches)
        knobs.runtime.launch_enter_hook.add(called.append)
        try:
            layer(x)
        finally:
            knobs.runtime.launch_enter_hook.remove(called.append)
    assert len(launches) == 2 * count and len(called) == count
    assert all(metadata.get()["name"].endswith("_kernel") for metadata in called)


@pytest.mark.parametrize(
    ("op", "rest", "most"),
    [
        ("int8_linear", (torch.empty(3072, 768, dtype=torch.int8), torch.empty(3072)), 8),
        ("quantize_rows", (), 3),
        ("gelu_quantize_rows", (), 3),
        ("layer_norm_quantize_rows", (None, torch.empty(768), torch.empty(768)), 3),
        ("fake_quant", (torch.empty(()),), 3),
    ],
)
def test_few_kernels_serve_all_numbers_of_rows(op, rest, most):
    run = getattr(torch.ops.sparseq, op)
    calls = [Case(op, f"{M} rows", lambda M=M: run(torch.empty(M, 768), *rest)) for M in ROWS]
    found = variants("sm_90", calls)
    assert len(found) <= most, Counter(one.kernel for one in found)


class Compiled:
    """Stands for a compiled kernel: what of its arguments Triton compiled it for."""

    function, packed_metadata = 1, ()

    def __init__(self, facts: str) -> None:
        self.facts = facts

    def __getitem__(self, grid):
        return self.run

    def run(self, *args):
        pass


def test_a_kernel_is_found_again_only_where_triton_finds_the_same(monkeypatch):
    def facts(kernel, args):
        binder = kernel.device_caches[gpu.get_current_device()][4]
        return str(binder(*args, *constants)[1])

    sizes = (1, 2, 15, 16, 17, 2**31 - 1, 2**31, 2**40)
    wide = torch.zeros(40, 64)
    inputs = (wide, wide.bfloat16(), wide.flatten()[1:], wide.flatten()[4:])
    calls = [
        (x, None, levels, torch.zeros(40), M, K, 64)
        for x in inputs
        for levels in (None, wide.to(torch.int8), wide.to(torch.int16))
        for M, K in [*((size, 64) for size in sizes), *((40, size) for size in sizes)]
    ]
    kernel, constants = quantize_rows.quantize_rows_kernel, (127, "none", False, 1, False, False, True, 16, 64, True)
    monkeypatch.setattr(JITFunction, "run", lambda self, *args, **named: Compiled(facts(self, args[: len(calls[0])])))
    with absent_gpu("sm_90") as gpu:
        for args in calls * 2:
            assert launch(kernel, (1, 1, 1), args, constants, 4, 1).facts == facts(kernel, args), args[4:]
        assert len({facts(kernel, args) for args in calls}) > 3 * len(sizes)


def test_the_benchmark_runs_and_leaves_launch_as_it_was(tmp_path):
    assert host.main(["--smallest", "--out", str(tmp_path)]) == 0
    [result] = common.read_results("host", tmp_path)
    assert set(result["rows"][0]["seconds"]) == set(host.PARTS)
    assert int8_linear.launch is quantize_rows.launch is launch
