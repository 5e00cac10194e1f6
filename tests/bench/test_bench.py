import json
import os
from pathlib import Path

import pytest
import torch

from bench import common, render, tables
from bench.check import WrongResultError, require_close, require_equal
from bench.studies import demo_seeds, formats, model, packed_linear, qat_step
from sparseq import InputError, backend, convert, pack, save
from sparseq.timing import alternate
from sparseq_kernels.backends import runnable

ROOT = Path(__file__).parents[2]
OPS = (
    "fake_quant", "gelu_quantize_rows", "int8_embedding", "int8_linear", "layer_norm_quantize_rows", "magnitude_mask",
    "masked_linear", "qat_linear", "quantize_rows",
)  # fmt: skip
# Of which only a GPU's kernels are timed.
GPU_OPS = (
    "bitmask_int8_linear", "block_sparse_int8_linear", "int8_linear_compiled", "semi_structured_int8_linear",
)  # fmt: skip


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
    assert [file.stem for file in files] == [f"bench_{op}" for op in sorted(OPS + GPU_OPS)]
    done = run_kernels(*files, "--benchmark-json", tmp_path / "found.json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())["benchmarks"]
    assert {entry["group"] for entry in found} == set(OPS)
    assert all(entry["extra_info"] for entry in found)


def test_the_readme_lists_every_program_operator_and_result_file():
    readme = (ROOT / "bench" / "README.md").read_text(encoding="utf-8")
    for folder in ("bench", "bench/studies", "tools"):
        modules = [path for path in sorted((ROOT / folder).glob("*.py")) if path.name != "__init__.py"]
        programs = [path.stem for path in modules if "__main__" in path.read_text(encoding="utf-8")]
        command = f"`python -m {folder.replace('/', '.')}"
        assert [name for name in programs if f"{command}.{name}" not in readme] == []
        assert [path.name for path in modules if path.stem not in programs and f"`{path.name}`" not in readme] == []
    assert [op for op in OPS + GPU_OPS if f"`{op}`" not in readme] == []
    names = {json.loads(path.read_text())["name"] for path in (ROOT / "bench" / "results").glob("*.json")}
    assert [name for name in sorted(names - {*OPS, *GPU_OPS}) if f"`{name}-" not in readme] == []


def test_seeds_are_summed_up_in_points():
    rows = [
        {"scores": {"plain": plain, "compressed": compressed}, "lost": plain - compressed}
        for plain, compressed in ((0.80, 0.79), (0.82, 0.83))
    ]
    line = demo_seeds.summary("fp32", rows)
    assert list(line["cells"].values()) == ["fp32, mean ± spread", "81.0 ± 1.4", "81.0 ± 2.8", "0.0 ± 1.4", ""]


def test_a_wrong_result_is_not_timed(tmp_path, run_kernels):
    zeros = "lambda x, w, *rest: x.new_zeros(len(x), len(w))"
    broken = f"import sparseq_kernels.backends as b; b.NATIVE['int8_linear'] = {zeros}"
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
    assert list(result["rows"][0]["seconds"]) == ["sparseq", "fp32 nn.Linear"]
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


@pytest.mark.skipif("native" not in runnable(), reason="there is no native code here")
def test_a_packed_layer_is_compared_on_the_cpu(tmp_path):
    threads = torch.get_num_threads()
    try:
        assert packed_linear.main(["--smallest", "--out", str(tmp_path)]) == 0
    finally:
        torch.set_num_threads(threads)
    [result] = common.read_results("packed_linear", tmp_path)
    assert {(r["of"], r["to"]) for r in result["rows"][0]["ratios"]} == {
        (name, packed_linear.FP32) for name in (packed_linear.OURS, packed_linear.PLAIN, packed_linear.QAT)
    }
    assert result["settings"]["clock"] == "time.thread_time" and result["machine"]["threads"] == 1
    assert "fp32 nn.Linear" in render.render("packed_linear", tmp_path)


def test_qat_step_keeps_less_for_the_backward(tmp_path):
    assert qat_step.main(["--smallest", "--out", str(tmp_path)]) == 0
    [result] = common.read_results("qat_step", tmp_path)
    assert [row["case"]["step"] for row in result["rows"]] == ["forward + backward", "with AdamW"]
    assert {r["of"] for r in result["rows"][0]["ratios"]} == {qat_step.QAT, qat_step.MASKED}
    assert {"cpu", "cores", "threads", "flags", "system"} <= set(result["machine"])
    blocks = qat_step.make_blocks(0.0)
    hidden = torch.randn(8, 64, qat_step.HIDDEN, requires_grad=True)
    saved = {name: qat_step.saved_bytes(block, hidden) for name, block in blocks.items()}
    assert saved[qat_step.QAT] < saved["fp32"] and saved[qat_step.QAT] == saved[qat_step.MASKED]


def test_qat_step_refuses_a_wrong_layer():
    blocks = qat_step.make_blocks(0.0)
    block = blocks[qat_step.QAT]
    hidden, grad = torch.randn(2, 4, 384, requires_grad=True), torch.randn(2, 4, 384)
    qat_step.check("QAT", block, hidden, grad)
    layer = block.layer[0].output.dense
    layer.register_forward_hook(lambda module, inputs, out: out * 1.5 if backend() != "reference" else out)
    with pytest.raises(WrongResultError):
        qat_step.check("QAT", block, hidden, grad)


def test_models_of_folders_are_timed(tmp_path, tiny_model_dir):
    [trained] = model.folder_models([tiny_model_dir]).values()
    save(pack(convert(trained)), tmp_path / "packed")
    folders = [str(tiny_model_dir), str(tmp_path / "packed")]
    assert model.main([*folders, "--smallest", "--out", str(tmp_path), "--name", "pair"]) == 0
    [result] = common.read_results("pair", tmp_path)
    assert result["settings"]["models"]["packed"]["packed_layers"] > 0
    assert list(result["rows"][0]["seconds"]) == [tiny_model_dir.name, "packed"]
    with pytest.raises(InputError, match="there is no folder"):
        model.main([str(tmp_path / "absent")])


def test_smallest_writes_nothing_by_itself(monkeypatch, tmp_path):
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    assert model.main(["--smallest"]) == 0
    assert not list(tmp_path.iterdir())


def kernel_rows():
    times = alternate({"sparseq": lambda: None, "peer": lambda: None}, 2, shortest=0)
    return [
        {"case": {"size": "tiny", "layer": "8 -> 8", "M": M, "step": "forward"}, **times.as_dict([("sparseq", "peer")])}
        for M in (1, 16)
    ]


def test_tables_are_rendered_checked_and_stable(tmp_path):
    results, page = tmp_path / "results", tmp_path / "page.md"
    common.write_result("int8_linear", kernel_rows(), {}, results)
    assert model.main(["--smallest", "--out", str(results)]) == 0
    marked = "<!-- table: {} -->\n{}<!-- end -->\n"
    page.write_text("# Page\n" + marked.format("int8_linear", "") + "text\n" + marked.format("model", "old\n"))
    switches = ["--page", str(page), "--results", str(results)]
    assert tables.main([*switches, "--check"]) == 1
    assert tables.main(switches) == 0 and tables.main([*switches, "--check"]) == 0
    text = page.read_text()
    assert "| size | layer | M = 1 | M = 16 |" in text and "time / time of peer" in text and "packed int8" in text
    assert "old" not in text and "\ntext\n" in text
    common.write_result("int8_linear", kernel_rows()[:1], {}, results)
    assert tables.main([*switches, "--check"]) == 1


def test_a_table_without_results_says_so_and_an_open_marker_is_refused(tmp_path):
    assert tables.filled("<!-- table: none -->\n<!-- end -->", tmp_path).count(render.NO_RESULTS) == 1
    page = tmp_path / "page.md"
    page.write_text("<!-- table: none -->\n")
    assert tables.main(["--page", str(page), "--check"]) == 2


def test_a_result_is_named_after_the_machine():
    described = {"cpu": "Intel(R) Xeon(R) Processor @ 2.50GHz", "threads": 2}
    assert common.slug(described) == "intel-xeon-processor-2-50ghz-2t"


def test_formats_are_counted_and_rendered(tmp_path):
    assert formats.main(["--smallest", "--out", str(tmp_path)]) == 0
    [result] = common.read_results("formats", tmp_path)
    found = {row["case"]["pattern"]: row["cells"]["50% kept"] for row in result["rows"]}
    assert found["unstructured"] == "5.00 bitmask" and found["2:4"] == "5.00 semi_structured"
    assert found["64x64"].endswith("block_sparse") and "5.00 bitmask" in render.render("formats", tmp_path)
