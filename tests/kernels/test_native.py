from pathlib import Path

import pytest
import torch

from sparseq_kernels import InputError, set_backend
from sparseq_kernels.cpu import native
from sparseq_kernels.cpu.native import build
from sparseq_kernels.cpu.native.compiler import CompileError, find_compiler


def test_is_built_once_and_then_taken_from_the_cache(tmp_path, fresh):
    code = "import torch, sparseq_kernels; torch.ops.sparseq.quantize_rows(torch.ones(2, 2)); "
    code += "print(sparseq_kernels.backend())"
    for _ in range(2):
        assert fresh.run(code, SPARSEQ_CACHE=str(tmp_path)).stdout == "native\n"
        (built,) = (tmp_path / "native").glob("*.so")
        times = built.stat().st_mtime_ns
    assert built.stat().st_mtime_ns == times and not [p for p in built.parent.iterdir() if p != built]


def test_without_a_compiler_it_says_so_and_runs_on_torchs_operators(tmp_path, fresh):
    nothing = {"SPARSEQ_CACHE": str(tmp_path), "PATH": "", "CC": ""}
    code = "import torch, sparseq_kernels; print(torch.ops.sparseq.quantize_rows(torch.ones(1, 2))[0].tolist()); "
    code += "print(sparseq_kernels.backend())"
    done = fresh.run(code, **nothing)
    assert done.stdout.split("\n")[:2] == ["[[127, 127]]", "cpu"]
    assert "slower than its backend 'native': no C compiler was found" in done.stderr
    code = "import sparseq_kernels; sparseq_kernels.backend()"
    forced = fresh.run(code, **nothing, SPARSEQ_BACKEND="native")
    assert "backend 'native' cannot run here: no C compiler was found" in forced.stderr


def test_a_compiler_that_fails_is_quoted(tmp_path):
    with pytest.raises(CompileError, match=r"could not build it: .*no-such-flag"):
        build._build(find_compiler(), native.SOURCES, ("-no-such-flag",), tmp_path, "x")
    assert not list(tmp_path.iterdir())


def test_forcing_it_where_it_is_not_available(monkeypatch):
    monkeypatch.setattr("sparseq_kernels.cpu.backend.why_not_native", lambda: "no C compiler was found")
    with pytest.raises(InputError, match="'native' cannot run here: no C compiler"):
        set_backend("native")


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (1, 1), (577, 63), (64, 1024)])
@pytest.mark.parametrize("bias", [False, True])
def test_scaling_sums_and_dequantizing(shape, bias):
    acc, rows, columns = (
        torch.randint(-(2**20), 2**20, shape, dtype=torch.int32),
        torch.rand(shape[0]),
        torch.rand(shape[1]),
    )
    added = torch.randn(shape[1]) if bias else None
    expected = acc.float() * rows.unsqueeze(1) * columns + (0 if added is None else added)
    assert torch.equal(native.scale_sums(acc, rows, columns, added), expected)
    one = torch.rand(1)
    assert torch.equal(native.scale_sums(acc, one, columns, None), acc.float() * one * columns)
    q = torch.randint(-127, 128, shape, dtype=torch.int8)
    assert torch.equal(native.dequantize_rows(q, rows), q.float() * rows.unsqueeze(1))


def test_one_openmp_runtime_serves_torch_and_the_native_code(fresh):
    """In a process of its own: scikit-learn, which other tests import, brings another."""
    if not Path("/proc/self/maps").exists():
        pytest.skip("needs /proc to see which libraries are loaded")
    code = "import torch, sparseq_kernels; torch.ops.sparseq.quantize_rows(torch.randn(256, 256)); "
    code += "loaded = {line.split()[-1] for line in open('/proc/self/maps') if 'libgomp' in line}; "
    code += "print(sparseq_kernels.backend(), len(loaded))"
    assert fresh.run(code).stdout == "native 1\n"
