"""The compile check itself: that it reaches every kernel, and that it refuses what it is there to refuse."""

import functools
import importlib
import itertools
import json
import pkgutil
from types import SimpleNamespace

import pytest
import torch

from sparseq_kernels.triton.runtime.availability import interpreted, why_not

if (reason := why_not()) is not None or interpreted():
    pytest.skip(f"needs a Triton that compiles: {reason or 'this is its interpreter'}", allow_module_level=True)

import triton
import triton.language as tl

import sparseq_kernels.triton.kernels
from bench import render, tables
from bench.common import RESULTS
from sparseq import InputError, backend
from sparseq_kernels import backends
from sparseq_kernels.registry import implemented
from sparseq_kernels.triton.runtime import heuristics, tuned
from sparseq_kernels.triton.runtime.device import current
from sparseq_kernels.triton.runtime.launch import launch
from tools import assembly, compile_check
from tools.absent_gpu import ARCHITECTURES, absent_gpu
from tools.compile_cases import BASE, Case, cases, int8_linear, tuned_cases
from tools.compile_variants import Variant, smallest_set, variants


@pytest.fixture(autouse=True)
def _own_triton_cache(tmp_path_factory, monkeypatch):
    """Compiles anew, and leaves nothing in the user's cache."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "triton"))


def all_kernels() -> set[str]:
    """The functions of sparseq_kernels.triton.kernels that are launched: those named <something>_kernel."""
    package = sparseq_kernels.triton.kernels
    modules = [
        importlib.import_module(f"{package.__name__}.{found.name}") for found in pkgutil.iter_modules(package.__path__)
    ]
    functions = [one for module in modules for one in vars(module).values() if isinstance(one, triton.JITFunction)]
    return {one.__name__ for one in functions if one.__name__.endswith("_kernel")}


def quantizing(width: int) -> Case:
    return Case("quantize_rows", f"{width} wide", lambda: torch.ops.sparseq.quantize_rows(torch.empty(16, width)))


# By default of NVIDIA the one with a kernel of its own, and AMD's.
@pytest.mark.parametrize(
    "arch",
    [arch if arch in ("sm_90", "gfx942") else pytest.param(arch, marks=pytest.mark.slow) for arch in ARCHITECTURES],
)
def test_every_op_and_every_kernel_is_compiled(arch):
    calls = list(cases())
    called = {case.op for case in calls} | {f"{case.op}_backward" for case in calls if "backward" in case.text}
    backends.load("triton")
    assert implemented("triton") == called
    found = variants(arch, calls)
    # Descriptors are for Hopper's copies, the only ones that were measured.
    assert {one.kernel for one in found} == all_kernels() - ({"int8_descriptor_kernel"} if arch != "sm_90" else set())
    assert {one.arch for one in found} == {arch}
    smallest = smallest_set(found)
    assert {(one.kernel, one.config) for one in smallest} == {(one.kernel, one.config) for one in found}
    assert {(one.kernel, one.hungry) for one in smallest} >= {(one.kernel, one.hungry) for one in found if one.hungry}
    assert len(smallest) < len(found) / 2


# Of Triton 3.7.1 each spilled on this architecture before its tile was written in more parts, or loaded less ahead.
SPILLED = [
    ("sm_80", "gradient_kernel", "out *fp32, out_mask *u8", "EVEN_D=False", "BLOCK_R=64, BLOCK_C=128"),
    ("sm_80", "int8_tile_kernel", "bias *fp32, out *fp32", "ACTIVATION=none", "BLOCK_M=128, BLOCK_N=256"),
    ("sm_90", "int8_tile_kernel", "bias *fp32, out *bf16", "ACTIVATION=none", "BLOCK_M=128, BLOCK_N=128"),
    ("sm_90", "int8_tile_kernel", "bias *fp32, out *fp16", "ACTIVATION=none", "BLOCK_M=128, BLOCK_N=128"),
    ("sm_90", "int8_tile_kernel", "bias *fp32, out *fp32", "ACTIVATION=none", "BLOCK_M=128, BLOCK_N=128"),
    ("sm_90", "int8_tile_kernel", "bias *fp32, out *fp32", "ACTIVATION=gelu", "BLOCK_M=128, BLOCK_N=128"),
    ("sm_90", "int8_descriptor_kernel", "bias *fp32, out *fp32", "ACTIVATION=gelu", "BLOCK_M=128, BLOCK_N=128"),
]


@functools.cache
def smallest_products(arch: str) -> list[Variant]:
    calls = [case for case in cases() if case.op in ("int8_linear", "qat_linear") and str(BASE) in case.text]
    return smallest_set(variants(arch, calls))


@pytest.mark.parametrize(("arch", "kernel", "types", "constant", "tile"), SPILLED)
def test_the_smallest_set_has_what_spilled(arch, kernel, types, constant, tile):
    chosen = smallest_products(arch)
    assert any(one.kernel == kernel and all(part in one.text for part in (types, constant, tile)) for one in chosen)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("M", [16, 1024])
def test_what_is_loaded_value_by_value_is_not_loaded_ahead(arch, M):
    """Rows of 312 levels: a tile as deep as others would take a register for each of its values, and spill."""
    with absent_gpu(arch):
        device = current()
    config, whole = (heuristics.int8_config(M, 1248, K, "gelu", device) for K in (312, 320))
    assert config.num_stages == 1 < whole.num_stages
    assert M <= heuristics.SKINNY_ROWS or (config.block_m, config.block_n, config.block_k) == (64, 64, 32)


@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_every_type_of_output_meets_an_fp32_bias_and_a_gelu_in_the_largest_tile(arch):
    chosen = smallest_set(variants(arch, int8_linear(8192, 4 * BASE, BASE, True)))
    for out in ("bf16", "fp16", "fp32", "i8"):
        assert any(f"bias *fp32, out *{out}" in one.hungry and "ACTIVATION=gelu" in one.hungry for one in chosen), out


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("activation", ["none", "gelu"])
def test_no_part_of_a_planned_tile_holds_more_outputs_than_registers_are_left_for(arch, activation):
    with absent_gpu(arch):
        device = current()
    for M, (N, K) in itertools.product((64, 128, 1024, 8192), ((768, 768), (3072, 768), (768, 3072))):
        config = heuristics.int8_config(M, N, K, activation, device)
        for out_bytes, most in ((1, 32), (2, 32), (4, 16)):
            parts = config.output_parts(out_bytes)
            assert config.sums < 64 or config.sums // parts <= most, (config, out_bytes)
            assert config.block_n // parts >= 16 and config.block_n % parts == 0, (config, out_bytes)


def test_the_stand_in_is_there_within_its_block_alone():
    before = backend("cpu")
    with absent_gpu("gfx942") as gpu:
        assert backend("cpu") == "triton" and current().amd and current().processors == 304
        torch.ops.sparseq.quantize_rows(torch.empty(8, 64))
        with absent_gpu("sm_89"):
            assert current().arch == "sm_89"
        assert current().arch == "gfx942"
    assert backend("cpu") == before
    [launched] = gpu.launches
    assert launched.kernel == "quantize_rows_kernel" and launched.args["M"] == 8 and launched.args["mask"] is None
    with pytest.raises(InputError, match="unknown architecture"), absent_gpu("sm_75"):
        pass


@pytest.mark.parametrize("arch", ["sm_80", "gfx942"])
def test_a_kernel_passes(arch):
    [found] = compile_check.examine(variants(arch, [quantizing(64)]))
    assert found.problems == () and 8 < found.registers < 128 and found.spilled == 0 and not found.matrix


def test_a_measured_plan_is_compiled(tmp_path, monkeypatch):
    config = {"kind": "int8", "M": 64, "N": 512, "K": 256}
    config |= {"block_m": 32, "block_n": 64, "block_k": 64, "num_warps": 2, "num_stages": 3}
    content = {"device": "NVIDIA H100 80GB HBM3", "triton": triton.__version__, "configs": [config]}
    (tmp_path / "h100.json").write_text(json.dumps(content))
    monkeypatch.setattr(tuned, "FOLDER", tmp_path)
    for cached in (tuned._configs, heuristics.int8_config):
        cached.cache_clear()
    assert list(tuned_cases("sm_80")) == []
    found = variants("sm_90", tuned_cases("sm_90"))
    tiles = [one for one in found if one.kernel == "int8_tile_kernel"]
    assert tiles and all("BLOCK_M=32, BLOCK_N=64" in one.config and "2 warps, 3 stages" in one.config for one in tiles)
    tuned._configs.cache_clear()
    heuristics.int8_config.cache_clear()


@triton.jit
def rounding_kernel(x, scale, out, N, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = tl.load(x + at, mask=at < N) * tl.load(scale)
    tl.store(out + at, (value + 12582912.0).to(tl.int32, bitcast=True), mask=at < N)


@triton.jit
def product_kernel(x, w, out, K, BLOCK: tl.constexpr, DEPTH: tl.constexpr):
    rows, depth = tl.arange(0, BLOCK), tl.arange(0, DEPTH)
    acc = tl.zeros((BLOCK, BLOCK), tl.float32)
    for k in range(0, K, DEPTH):
        a = tl.load(x + rows[:, None] * K + k + depth[None, :])
        b = tl.load(w + rows[None, :] * K + k + depth[:, None])
        acc = tl.dot(a, b, acc, input_precision="tf32")
    tl.store(out + rows[:, None] * BLOCK + rows[None, :], acc)


def checked(arch: str, kernel, args, constants, warps: int = 4, stages: int = 1, **options) -> tuple[str, ...]:
    """What the check says of a kernel."""
    with absent_gpu(arch):
        if options:
            compiled = kernel[(1,)](*args, *constants, num_warps=warps, num_stages=stages, **options)
        else:
            compiled = launch(kernel, (1, 1, 1), args, constants, warps, stages)
    amd = arch.startswith("gfx")
    [text] = [compiled.asm["amdgcn"]] if amd else assembly.nvidia_assembly([compiled])
    return compile_check.check(Variant(arch, "", kernel.__name__, "", "", "", 0), compiled, text).problems


@pytest.mark.parametrize("arch", ["sm_90", "gfx942"])
def test_a_fused_rounding_is_refused(arch):
    args = (torch.empty(64), torch.empty(1), torch.empty(64, dtype=torch.int32), 64)
    assert checked(arch, rounding_kernel, args, (64,)) == ()
    [problem] = checked(arch, rounding_kernel, args, (64,), enable_fp_fusion=True)
    assert "multiply and add at once" in problem


def test_spills_and_what_does_not_fit_are_refused():
    x = torch.empty(256, 256, dtype=torch.bfloat16)
    args = (x, x, torch.empty(256, 256), 256)
    assert checked("sm_80", product_kernel, args, (64, 32), 4, 3) == ()
    assert any("spills" in problem for problem in checked("sm_80", product_kernel, args, (256, 32), 4, 3))
    with pytest.raises(triton.runtime.errors.OutOfResources):
        checked("sm_89", product_kernel, args, (128, 128), 8, 3)


DOT = "tt.dot %1, %2, %3, inputPrecision = tf32 : tensor<16x16xi8> * tensor<16x16xi8> -> tensor<16x16xi32> loc(#loc1)"
FINE = {"vgpr_count": 40, "vgpr_spill_count": 0, "sgpr_spill_count": 0, "private_segment_fixed_size": 0}


@pytest.mark.parametrize(
    ("ttir", "code", "changed", "shared", "problem"),
    [
        ("", "", {}, 0, None),
        (DOT, "v_mfma_i32_32x32x16_i8 v[0:15]", {}, 0, None),
        (DOT, "v_mfma_f32_32x32x8_f16 v[0:15]", {}, 0, "has no int8 matrix instruction"),
        ("dense<0x4B400000>", "v_add_f32 v1, 0x4b400000, v2", {}, 0, None),
        ("dense<0x4B400000>", "v_add_f32 v1, v2, v3", {}, 0, "was not found"),
        ("", "", {"vgpr_spill_count": 3}, 0, "spills 12 bytes"),
        ("", "", {"private_segment_fixed_size": 64}, 0, "spills 64 bytes"),
        ("", "", {}, 65 * 1024, "needs 65 KiB of shared memory, where a program has 64 KiB"),
    ],
)
def test_what_the_machine_code_must_have(ttir, code, changed, shared, problem):
    text = code + "".join(f"\n    .{name}: {value}" for name, value in (FINE | changed).items())
    kernel = SimpleNamespace(asm={"ttir": ttir, "amdgcn": text}, metadata=SimpleNamespace(shared=shared, num_stages=2))
    found = compile_check.check(Variant("gfx942", "", "", "", "", "", 0), kernel, text).problems
    assert (problem is None and found == ()) or (len(found) == 1 and problem in found[0]), found


def test_a_product_of_stages_must_copy_asynchronously(monkeypatch):
    monkeypatch.setattr(assembly, "nvidia_resources", lambda cubin: assembly.Resources(40, 0))
    asm = {"ttir": DOT, "ptx": "", "cubin": b""}
    variant = Variant("sm_80", "", "", "", "", "", 0)
    for stages, code, count in ((2, "IMMA.16832.S8.S8", 1), (1, "IMMA.16832.S8.S8", 0), (2, "IMMA LDGSTS.E", 0)):
        kernel = SimpleNamespace(asm=asm, metadata=SimpleNamespace(shared=0, num_stages=stages))
        assert len(compile_check.check(variant, kernel, code).problems) == count


def test_what_does_not_compile_is_reported_and_exits_with_1(monkeypatch, capsys):
    found = variants("sm_80", [quantizing(64), quantizing(128)])
    broken = Variant("sm_80", found[0].module, "quantize_rows_kernel", "{}", "this one", "", 0)
    results = compile_check.examine([found[1], broken])
    assert [bool(one.problems) for one in results] == [True, False]
    monkeypatch.setattr(compile_check, "variants", lambda arch, calls: found)
    monkeypatch.setattr(compile_check, "examine_all", lambda wanted, jobs: results)
    assert compile_check.main(["--arch", "sm_80", "--smallest"]) == 1
    said = capsys.readouterr().out
    assert "quantize_rows_kernel for sm_80 does not compile" in said and "(this one)" in said
    assert "python -m tools.compile_check --arch sm_80 --kernel quantize_rows_kernel" in said


def test_a_kernel_alone_is_compiled_and_an_unknown_one_refused(monkeypatch, capsys, tmp_path):
    found = variants("sm_80", [quantizing(64), Case("fake_quant", "64", faking)])
    wanted: list[Variant] = []
    monkeypatch.setattr(compile_check, "variants", lambda arch, calls: found)
    monkeypatch.setattr(compile_check, "examine_all", lambda given, jobs: wanted.extend(given) or [])
    assert compile_check.main(["--architecture", "sm_80", "--kernel", "fake_quant_kernel", "--out", str(tmp_path)]) == 0
    assert {one.kernel for one in wanted} == {"fake_quant_kernel"}
    [path] = tmp_path.iterdir()
    settings = json.loads(path.read_text())["settings"]
    assert settings["kernel"] == ["fake_quant_kernel"] and settings["variants"] == len(found) > len(wanted)
    with pytest.raises(SystemExit) as error:
        compile_check.main(["--arch", "sm_80", "--kernel", "no_kernel"])
    assert error.value.code == 2
    assert "no call compiles no_kernel: the kernels are fake_quant_kernel" in capsys.readouterr().err


def faking():
    return torch.ops.sparseq.fake_quant(torch.empty(16, 64), torch.empty(16, 1), 8)


@pytest.mark.parametrize("given", [["--smallest"], ["--kernel", "quantize_rows_kernel"], ["--arch", "sm_80"]])
def test_only_everything_is_written_to_the_results(given, monkeypatch, tmp_path):
    found = variants("sm_80", [quantizing(64)])
    monkeypatch.setattr(compile_check, "RESULTS", tmp_path)
    monkeypatch.setattr(compile_check, "variants", lambda arch, calls: found)
    monkeypatch.setattr(compile_check, "examine_all", lambda wanted, jobs: [compile_check.Found(found[0], ())])
    assert compile_check.main(given) == 0 and not list(tmp_path.iterdir())
    assert compile_check.main([]) == 0 and len(list(tmp_path.iterdir())) == 1


def test_an_interrupted_check_begins_nothing_more(monkeypatch, capsys):
    found = variants("sm_80", [quantizing(64)])
    monkeypatch.setattr(compile_check, "variants", lambda arch, calls: found)
    pools = []

    class Pool:
        def __init__(self, *unused):
            pools.append(self)
            self.ended = []

        def submit(self, *unused):
            raise KeyboardInterrupt

        def shutdown(self, **how):
            self.ended.append(how)

    ended = []
    worker = SimpleNamespace(terminate=lambda: ended.append("worker"))
    monkeypatch.setattr(compile_check, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(compile_check, "active_children", lambda: [worker])
    assert compile_check.main(["--arch", "sm_80"]) == 130
    assert ended == ["worker"] and pools[0].ended == [{"cancel_futures": True}]
    assert "the same command continues from here" in capsys.readouterr().err


def test_the_result_says_nothing_of_the_machine_and_is_rendered(tmp_path):
    found = compile_check.examine(variants("sm_80", [quantizing(64)]))
    settings = {"smallest": False, "arch": [], "kernel": [], "compiled": 1, "variants": 1}
    path = compile_check.write(compile_check.rows(found), settings, tmp_path)
    content = json.loads(path.read_text())
    assert path.name == f"compile-triton{triton.__version__}.json" and "machine" not in content
    assert content["rows"][0]["architectures"]["sm_80"]["variants"] == 1
    text = tables.filled("<!-- table: compile -->\n<!-- end -->", tmp_path)
    assert f"triton {triton.__version__}" in text and "| `quantize_rows_kernel` | 1 |" in text
    assert "Everything, 1 variants: triton" in text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, "Everything, 2,013 variants"),
        ({"smallest": True, "compiled": 628}, "**Not everything**: 628 of 2,013 variants (the smallest set)"),
        ({"arch": ["sm_80", "sm_90"], "compiled": 800}, "800 of 2,013 variants (only sm_80 and sm_90)"),
        ({"kernel": ["decode_kernel"], "compiled": 10}, "10 of 2,013 variants (only decode_kernel)"),
    ],
)
def test_a_table_says_how_much_was_compiled(changed, said):
    settings = {"smallest": False, "arch": [], "kernel": [], "compiled": 2013, "variants": 2013}
    assert said in render.coverage(settings | changed)


@pytest.mark.parametrize("path", sorted(RESULTS.glob("compile-*.json")), ids=lambda path: path.stem)
def test_a_published_result_says_how_much_was_compiled(path):
    content = json.loads(path.read_text())
    compiled = sum(one["variants"] for row in content["rows"] for one in row["architectures"].values())
    assert compiled == content["settings"]["compiled"] <= content["settings"]["variants"]
    assert content["settings"]["smallest"] == (compiled < content["settings"]["variants"])
    assert not any(one["failing"] or one["spilled"] for row in content["rows"] for one in row["architectures"].values())
