"""The kernel benchmarks under pytest, and what their results rest on."""

import json
import os
from pathlib import Path

import pytest
import torch

from bench import common
from bench.check import WrongResultError, require_close, require_equal
from bench.kernels import OPS

ROOT = Path(__file__).parents[2]
GPU_ALONE = ("encoder", "int8_linear_compiled")


# Runs pytest with the repository importable, after any preparation given as code.
RUN = "import os, sys, pytest; os.chdir({root!r}); sys.path[:0] = {paths}; {before}; sys.exit(pytest.main({arguments}))"


@pytest.fixture
def run_kernels(fresh):
    def run(*arguments, before="pass"):
        # pytest-benchmark switches itself off where it believes to be one of several workers.
        environment = dict.fromkeys(key for key in os.environ if key.startswith("PYTEST_")) | {"SPARSEQ_BENCH": "ci"}
        paths = [str(ROOT), str(ROOT / "kernels"), str(ROOT / "tests")]
        given = ["-q", "-p", "no:cacheprovider", *map(str, arguments)]
        return fresh.run(RUN.format(root=str(ROOT), paths=paths, before=before, arguments=given), **environment)

    return run


def test_each_op_has_its_benchmark_and_each_runs(tmp_path, run_kernels):
    files = sorted((ROOT / "bench" / "kernels").glob("bench_*.py"))
    assert [file.stem for file in files] == [f"bench_{op}" for op in OPS]
    done = run_kernels(*files, "--benchmark-json", tmp_path / "found.json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())["benchmarks"]
    assert {entry["group"] for entry in found} == set(OPS) - set(GPU_ALONE)
    assert all(entry["extra_info"] for entry in found)


def test_a_wrong_result_is_not_timed(tmp_path, run_kernels):
    broken = (
        "import bench.packages as p; "
        "p.Packages.bind = lambda self, op, x, w, *rest: lambda: x.new_zeros(len(x), len(w), dtype=float)"
    )
    found = tmp_path / "found.json"
    options = ("--benchmark-json", found, "--results-to", tmp_path / "results")
    done = run_kernels("bench/kernels/bench_int8_linear.py", *options, before=broken)
    assert done.returncode == 1 and "nothing is reported of it" in done.stdout, done.stdout + done.stderr
    assert not found.exists() or not json.loads(found.read_text() or "{}").get("benchmarks")
    [result] = common.read_results("int8_linear", tmp_path / "results")
    assert [set(row) for row in result["rows"]] == [{"case", "failed"}]


def test_a_peer_that_cannot_run_is_reported_and_no_plugin_is_needed(tmp_path, run_kernels):
    broken = "import bench.kernels.peers as p; p.int_mm_linear = lambda *operands: 1 / 0"
    options = ("-p", "no:benchmark", "--device", "cpu", "--results-to", tmp_path)
    done = run_kernels("bench/kernels/bench_int8_linear.py", *options, before=broken)
    assert done.returncode == 0, done.stdout + done.stderr
    [result] = common.read_results("int8_linear", tmp_path)
    assert result["rows"][0]["absent"] == {"torch._int_mm + eager scales": "ZeroDivisionError: division by zero"}
    timed = list(result["rows"][0]["seconds"])
    assert timed == [
        "sparseq", "fp32 nn.Linear", "bf16 nn.Linear", "torch dynamic quantization", "torch._int_mm",
    ]  # fmt: skip
    assert result["settings"]["device"] == "cpu" and result["settings"]["backend"] in ("native", "cpu")


# A GPU's cases, peers and clock, with everything on the CPU and torch.cuda stood in for.
PRETENDED = """
import bench.clock, bench.target, fake_cuda, torch
cuda = fake_cuda.WallCuda()
bench.target.CudaClock = lambda: bench.clock.CudaClock(cuda)
bench.target.Target.device = property(lambda self: torch.device('cpu'))
for name in ('get_device_properties', 'current_device'):
    setattr(torch.cuda, name, getattr(cuda, name))
torch.cuda.is_available, torch.cuda.get_device_name = lambda: True, lambda *unused: 'NVIDIA H100 80GB HBM3'
torch.cuda.get_device_capability = lambda *unused: (9, 0)
torch.compile = lambda function, **options: function
"""


@pytest.mark.slow
def test_a_gpus_benchmarks_run_and_are_recorded_as_such(tmp_path, run_kernels):
    before = f"exec({PRETENDED!r})"
    ops = ("int8_linear", "int8_linear_compiled", "qat_linear")
    files = [f"bench/kernels/bench_{op}.py" for op in ops]
    done = run_kernels(*files, "-p", "no:benchmark", "--results-to", tmp_path, "--seconds", 600, before=before)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{op}-nvidia-h100-80gb-hbm3.json" for op in ops]
    [int8], [compiled], [qat] = (common.read_results(op, tmp_path) for op in ops)
    assert int8["machine"]["gpu"] == "NVIDIA H100 80GB HBM3" and int8["settings"]["ceilings"]["bf16"] > 0
    many, few = int8["rows"]
    assert many["case"]["M"] == 32 and few["case"] | {"M": 1, "step": "forward, gelu"} == few["case"]
    assert {"torch._int_mm", "fp16 nn.Linear"} < set(many["seconds"])
    assert "torch._int_mm + scales, compiled" in compiled["rows"][0]["seconds"]
    assert "needs more than 16 rows" in few["absent"]["torch._int_mm"]
    assert "torchao" in str(compiled["rows"][0]["absent"])
    for row in (*int8["rows"], *qat["rows"]):
        assert row["sets"] > 1 and {"datasheet", "measured"} <= set(row["floor"])
        assert set(row["how"]) == set(row["seconds"]) and set(row["how"].values()) <= {"graph", "events"}
    assert set(qat["rows"][0]["peak_bytes"]) == {"sparseq", "bf16 nn.Linear", "torch fake_quantize + nn.Linear"}


def test_a_kind_of_device_that_cannot_run_is_refused(run_kernels):
    done = run_kernels("bench/kernels/bench_quantize_rows.py", "--device", "interpreter")
    assert done.returncode == 4 and "Triton cannot run so" in done.stderr, done.stdout + done.stderr


def test_the_checks_refuse():
    x = torch.randn(4)
    require_close("same", x, x.double(), 1e-6)
    for found in (x * 1.1, torch.full((4,), float("nan")), x[:2]):
        with pytest.raises(WrongResultError, match="nothing is reported"):
            require_close("other", found, x, 1e-2)
    with pytest.raises(WrongResultError):
        require_equal("other dtype", x.int(), x.int().long())
