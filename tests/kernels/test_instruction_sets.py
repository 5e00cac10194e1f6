import os
import re
import subprocess
import sys

import pytest
import torch
from code_folders import compiler, forget, quietly, system_compiler
from cpu_backends import LACKING, NATIVE, on

import sparseq
from sparseq_kernels import InputError, instruction_sets, use_backend
from sparseq_kernels.cpu import native
from sparseq_kernels.cpu.native import prebuilt

pytestmark = pytest.mark.skipif(not NATIVE, reason="there is no native code here")
OPS = torch.ops.sparseq
OWN = [name for name in instruction_sets.available() if not name.startswith("emulated")]
BEST, *OTHERS = OWN


def values(*shape):
    return torch.randint(-128, 128, shape, dtype=torch.int8)


@pytest.mark.parametrize("K", [0, 1, 3, 16, 33, 64, 577, 1025])
def test_sums_are_exact(K, every_set):
    torch.manual_seed(K)
    for M in (0, 1, 2, 3, 7, 13):
        for N in (1, 4, 5, 63, 64, 65):
            x, w = values(M, K), values(N, K)
            assert torch.equal(native.int8_matmul(x, w), (x.double() @ w.double().t()).to(torch.int32))
    for x, w in ((127, -128), (-128, -128), (127, 127)):
        found = native.int8_matmul(torch.full((3, K), x, dtype=torch.int8), torch.full((5, K), w, dtype=torch.int8))
        assert torch.equal(found, torch.full((3, 5), x * w * K, dtype=torch.int32))


@pytest.mark.parametrize("M,N,K", [(1, 1, 1), (3, 5, 7), (16, 48, 64), (33, 70, 130)])
@pytest.mark.parametrize("activation", ["none", "gelu"])
def test_results_are_the_references_to_the_bit(M, N, K, activation, every_set):
    torch.manual_seed(M)
    x, bias = torch.randn(M, K), torch.randn(N)
    floats, masked = torch.randn(N, K), torch.rand(N, K) < 0.5
    weight, scale = OPS.quantize_rows(floats, 8)
    found = OPS.int8_linear(x, weight, scale, bias, None, activation)
    quantized = native.quantize_rows(x, 4), native.masked(x, x > 0), native.quantize_rows(floats, 8, masked)
    with use_backend("reference"):
        assert torch.equal(found, OPS.int8_linear(x, weight, scale, bias, None, activation))
        (q, s), kept, (q_masked, s_masked) = quantized
        for one, right in ((q, s), OPS.quantize_rows(x, 4)), ((q_masked, s_masked), OPS.quantize_rows(floats * masked)):
            assert torch.equal(one[0], right[0]) and torch.equal(one[1], right[1])
        assert torch.equal(kept, x.relu())


@pytest.mark.parametrize("names", [NATIVE, pytest.param(NATIVE + LACKING, marks=pytest.mark.slow)], ids=["own", "all"])
def test_rows_are_the_same_bits_with_each_set(names):
    """LayerNorm: sums run in one order, and nothing is fused. GELU: where products and sums can be rounded once."""
    torch.manual_seed(0)
    x, residual, weight, bias = torch.randn(7, 131), torch.randn(7, 131), torch.randn(131), torch.randn(131)
    norms, gelus = [], []
    for name in names:
        with on(name):
            norms.append(OPS.layer_norm_quantize_rows(x, residual, weight, bias))
            if "portable" not in name:
                gelus.append(OPS.gelu_quantize_rows(3 * x))
    for found in norms, gelus:
        for other in found[1:]:
            assert all(torch.equal(a, b) for a, b in zip(other, found[0], strict=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e-45, 0.0, 3e38])
def test_odd_values_are_quantized_as_by_the_reference(value, every_set):
    x = torch.randn(3, 37)
    x[1, 36] = value
    x[2] = value
    found = OPS.quantize_rows(x)
    with use_backend("reference"):
        right = OPS.quantize_rows(x)
    assert all(torch.equal(a.nan_to_num(7), b.nan_to_num(7)) for a, b in zip(found, right, strict=True))


def test_the_best_is_taken_and_named():
    assert OWN[-1] == "portable" and sparseq.instruction_set() == BEST
    with sparseq.use_instruction_set("portable"):
        assert sparseq.instruction_set() == "portable"
        assert re.fullmatch(
            r"native \(portable, (1 thread|\d+ threads), (built here|prebuilt)\)", sparseq.backend(details=True)
        )
    assert sparseq.instruction_set() == BEST


def test_an_unknown_one_is_refused():
    with pytest.raises(
        InputError, match="unknown instruction set 'sse9': there are avx512_vnni, avx512, avx2, portable"
    ):
        sparseq.set_instruction_set("sse9")


def test_one_that_the_processor_lacks_is_refused(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    assert instruction_sets.available() == ("portable",)
    with pytest.raises(
        InputError,
        match=r"'avx2' cannot run here: (torch finds DEFAULT on this processor, and it needs AVX2|it is of x86)",
    ):
        sparseq.set_instruction_set("avx2")


# Refuses the flags that the best set has and the next one has not, as an old gcc does.
OLD = """
case " $* " in *" {flag} "*) echo "cc1: error: unrecognized command-line option '{flag}'" >&2; exit 1;; esac
exec {compiler} "$@"
"""


@pytest.fixture
def old_compiler(folder, tmp_path, monkeypatch):
    if not OTHERS:
        pytest.skip("this processor has one instruction set alone")
    known = instruction_sets.SETS[OTHERS[0]].flags
    flag = next(flag for flag in instruction_sets.SETS[BEST].flags if flag not in known)
    monkeypatch.setenv("CC", str(compiler(tmp_path, OLD.format(flag=flag, compiler=system_compiler()))))
    monkeypatch.setattr(prebuilt, "load", lambda name: None)
    forget()
    return flag


@pytest.mark.slow
def test_an_old_compiler_costs_its_own_set_alone(old_compiler):
    reason = rf"without {BEST}: .* could not build it: cc1: error: unrecognized command-line option '{old_compiler}'"
    with pytest.warns(UserWarning, match=f"uses {OTHERS[0]}, though this processor has {BEST}, which is faster: "):
        assert sparseq.instruction_set() == OTHERS[0]
    assert sparseq.backend() == "native"
    assert re.fullmatch(rf"native \({OTHERS[0]}, .*, built here, {reason}\)", sparseq.backend(details=True))
    assert native.int8_matmul(torch.ones(1, 5, dtype=torch.int8), torch.ones(1, 5, dtype=torch.int8)).item() == 5
    with sparseq.use_instruction_set(OTHERS[-1]):
        assert "without" not in sparseq.backend(details=True)


def test_a_set_that_the_compiler_refuses_is_not_forced(old_compiler):
    refused = rf"'{BEST}' cannot run here: .* could not build it: cc1: error: unrecognized .* '{old_compiler}'"
    with pytest.raises(InputError, match=refused), sparseq.use_instruction_set(BEST):
        pass


def test_nor_by_the_variable(old_compiler, fresh):
    done = fresh.run("import sparseq; sparseq.backend()", SPARSEQ_INSTRUCTION_SET=BEST)
    assert f"'{BEST}' in SPARSEQ_INSTRUCTION_SET cannot run here: " in done.stderr and old_compiler in done.stderr


@pytest.mark.usefixtures("folder")
def test_a_compiler_that_can_build_nothing_is_quoted(tmp_path, monkeypatch):
    monkeypatch.setattr(prebuilt, "load", lambda name: None)
    monkeypatch.setenv("CC", str(compiler(tmp_path, "echo 'x.c: error: no headers'; exit 1")))
    assert quietly(native.why_not) == f"{tmp_path}/compiler could not build it: x.c: error: no headers"
    assert sparseq.instruction_set() == BEST


def test_a_processor_that_has_none_of_them_says_so(fresh):
    code = """
import sparseq, torch
from sparseq_kernels import instruction_sets
torch.backends.cpu.get_cpu_capability = lambda: "DEFAULT"
del instruction_sets.SETS["portable"]
print(sparseq.backend(), torch.ops.sparseq.quantize_rows(torch.ones(1, 2))[0].tolist())
for run in (sparseq.instruction_set, lambda: sparseq.set_backend("native")):
    try:
        run()
    except sparseq.InputError as error:
        print(error)
"""
    done = fresh.run(code, SPARSEQ_INSTRUCTION_SET=None)
    reason = "this processor has none of the native code's instruction sets (avx512_vnni: "
    first, *refused = done.stdout.splitlines()
    assert first == "cpu [[127, 127]]" and len(refused) == 2, done.stdout + done.stderr
    assert refused[0].startswith(reason) and refused[1].startswith(f"backend 'native' cannot run here: {reason}")
    assert f"slower than its backend 'native': {reason}" in done.stderr


def test_the_variable_is_read_and_checked(fresh):
    code = "import sparseq; print(sparseq.instruction_set())"
    assert fresh.run(code, SPARSEQ_INSTRUCTION_SET="portable").stdout == "portable\n"
    wrong = fresh.run(code, SPARSEQ_INSTRUCTION_SET="sse9")
    assert "unknown instruction set 'sse9' in SPARSEQ_INSTRUCTION_SET" in wrong.stderr


THREADS = """
import os, threading, torch
from sparseq_kernels.cpu import native
from sparseq_kernels.cpu.native import prebuilt
x, w = torch.ones(512, 512, dtype=torch.int8), torch.ones(512, 512, dtype=torch.int8)
native.library()
torch.set_num_threads(1)
before = len(os.listdir("/proc/self/task"))
found = []
def run():
    native.int8_matmul(x, w)
    found.append(len(os.listdir("/proc/self/task")) - before)
run()
thread = threading.Thread(target=run)
thread.start()
thread.join()
print(found)
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in /proc")
def test_torchs_number_of_threads_is_obeyed_in_every_thread():
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = os.environ | {"OMP_NUM_THREADS": "4", "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", THREADS], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "[0, 1]\n", done.stdout + done.stderr
