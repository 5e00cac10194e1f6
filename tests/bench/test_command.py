"""`python -m bench`: every op at its smallest, what is printed and written, and input that cannot be run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bench import __main__ as command
from bench import common, plot, render
from bench.check import WrongResultError
from bench.console import rate, seconds
from bench.kernels import OPS, bench_packed_linear, benchmark
from bench.kernels.cases import OURS
from bench.packages import CURRENT, Packages
from bench.target import Target
from sparseq_kernels.backends import runnable

ROOT = Path(__file__).parents[2]
CPU = Target("cpu", False)
ON_CPU = [op for op in OPS if benchmark(op).why_not(CPU) is None]
SMALL = {"MxKxN": "2x64x64", "MxK": "2x64", "K": "64"}


@pytest.fixture(autouse=True)
def _threads():
    """The command sets their number."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def run(capsys):
    def run(*arguments: str) -> tuple[int, str, str]:
        code = command.main(["run", *arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


@pytest.mark.parametrize("op", ON_CPU)
def test_every_op_runs_on_a_cpu_and_is_compared(op, run, tmp_path):
    shape = SMALL[benchmark(op).form]
    file = tmp_path / "found.json"
    code, said, _ = run(op, "--device", "cpu", "--smallest", "--shape", shape, "--peers", "--json", str(file))
    assert code == 0
    found = json.loads(file.read_text())
    assert found["name"] == op and found["machine"]["threads"] == 1 and found["settings"]["device"] == "cpu"
    for row in found["rows"]:
        assert len(row["seconds"]) >= 2 and row["ratios"] and row["floor"]["measured"]["fraction"] > 0
        assert all(name in said for name in row["seconds"])
    assert "of the roofline" in said and f"{OURS} / it" in said and "measured here: int8" in said


@pytest.mark.skipif("native" not in runnable(), reason="there is no native code here")
def test_a_packed_layer_is_compared_with_and_without_native_code(run, tmp_path):
    given = ("--device", "cpu", "--smallest", "--shape", "2x16x16", "--peers")
    assert run("packed_linear", *given, "--json", str(tmp_path / "packed_linear-here.json"))[0] == 0
    [result] = common.read_results("packed_linear", tmp_path)
    assert [(r["of"], r["to"]) for r in result["rows"][0]["ratios"]] == [
        (OURS, "fp32 nn.Linear"),
        (bench_packed_linear.PLAIN, "fp32 nn.Linear"),
        (bench_packed_linear.QAT, "fp32 nn.Linear"),
    ]
    assert result["settings"]["clock"] == "time.thread_time" and result["machine"]["threads"] == 1
    text = render.render("packed_linear", tmp_path)
    assert "fp32 nn.Linear" in text and "fraction of the floor, by rates measured here" in text


def test_every_op_is_listed(capsys):
    assert command.main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert command.main(["list"]) == 0 and capsys.readouterr().out == listed
    assert [line.split()[0] for line in listed.splitlines()] == list(OPS) and "MxKxN" in listed


def test_it_is_the_packages_command():
    done = subprocess.run(
        [sys.executable, "-m", "bench", "list"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "int8_linear " in done.stdout, done.stderr


def shapes(*arguments, op="int8_linear"):
    given = command.parser().parse_args(["run", op, *arguments])
    return command.shapes_of(benchmark(op), given.shape, given.rows, CPU)


def test_rows_are_swept_over_shapes():
    assert shapes("--shape", "16x768x3072", "--shape", "1x8X4") == [(16, 768, 3072), (1, 8, 4)]
    assert shapes("--shape", "768x3072", "--rows", "1,16") == [(1, 768, 3072), (16, 768, 3072)]
    assert shapes("--shape", "5x768x3072", "--rows", "7") == [(7, 768, 3072)]
    assert shapes() is None and shapes("--shape", "16x768", op="quantize_rows") == [(16, 768)]
    layers = {shape[1:] for shape in benchmark("int8_linear").shapes(CPU)}
    assert shapes("--rows", "3") == [(3, *layer) for layer in dict.fromkeys(s[1:] for s in shapes("--rows", "3"))]
    assert {shape[1:] for shape in shapes("--rows", "3")} == layers


def test_only_the_peers_asked_for_are_timed(run, tmp_path):
    names = {}
    for number, peers in enumerate(([], ["--peers", "fp32, dynamic"], ["--peers"])):
        file = tmp_path / f"{number}.json"
        given = ["int8_linear", "--device", "cpu", "--smallest", "--shape", "2x16x16", "--json", str(file)]
        assert run(*given, *peers)[0] == 0
        names[number] = list(json.loads(file.read_text())["rows"][0]["seconds"])
    assert names[0] == [OURS] and names[1] == [OURS, "fp32 nn.Linear", "torch dynamic quantization"]
    assert {"bf16 nn.Linear", "torch._int_mm"} < set(names[2])


def test_a_type_of_activations_can_be_asked_for(run, tmp_path):
    file = tmp_path / "found.json"
    code, *_ = run(
        "quantize_rows", "--device", "cpu", "--smallest", "--dtype", "bf16", "--threads", "2", "--json", str(file)
    )
    found = json.loads(file.read_text())
    assert code == 0 and found["settings"]["dtype"] == "bf16" and found["machine"]["threads"] == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nothing"], "there is no benchmark of 'nothing'"),
        (["int8_linear", "--shape", "16x768"], "takes shapes MxKxN, or KxN with --rows"),
        (["int8_linear", "--shape", "16xax2"], "has 'a' where a whole number"),
        (["int8_linear", "--shape", "16x0x2"], "has '0' where a whole number"),
        (["int8_linear", "--rows", "1,,2"], "has '' where a whole number"),
        (["magnitude_mask", "--rows", "1"], "has no rows to sweep"),
        (["semi_structured_int8_linear", "--smallest", "--shape", "1x6x6"], "does not divide"),
        (["block_sparse_int8_linear", "--smallest", "--shape", "1x100x100"], "64"),
        (["fake_quant", "--dtype", "bf16"], "timed in fp32 alone"),
        (["int8_linear_compiled"], "compiled for a GPU"),
        (["int8_linear", "--base", "no-such-commit"], "knows no commit 'no-such-commit'"),
        (["int8_linear", "--base=--help"], "knows no commit"),
        (["int8_linear", "--plot", "picture.txt"], "writes .svg, .png, .pdf files"),
        (["magnitude_mask", "--plot"], "which this op does not have"),
        (["packed_linear", "--plot"], "6 layers at most"),
        (["int8_linear", "--record", "--rows", "1"], "leave out the other options"),
        (["int8_linear", "--plot", "no/such/picture.png"], "no/such does not exist"),
        (["int8_linear", "--json", "no/such/file.json"], "no/such does not exist"),
        (["int8_linear", "--smallest", "--peers", "linear,zzz"], "'zzz', which is in no peer's name"),
        (["quantize_rows", "--smallest", "--shape", "99999999x9999999"], "does not fit into this machine's memory"),
    ],
)
def test_input_that_cannot_be_run_gets_a_sentence(arguments, sentence, run):
    code, _, complaint = run(*arguments, "--device", "cpu")
    assert code == 2 and sentence in complaint and complaint.count("\n") == 1, complaint


@pytest.mark.parametrize("arguments", [["--threads", "0"], ["--seconds", "nan"], ["--dtype", "int4"], []])
def test_options_that_are_no_numbers_are_refused(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["run", *(["int8_linear"] if arguments else []), *arguments])
    assert ended.value.code == 2 and "error" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command.main([])


def test_a_wrong_result_is_not_timed(run, monkeypatch):
    def zeros(self, op, *given):
        return lambda: torch.zeros(2, 16)

    monkeypatch.setattr(Packages, "bind", zeros)
    given = ["int8_linear", "--smallest", "--shape", "2x16x16", "--device", "cpu"]
    with pytest.raises(WrongResultError):
        command.run(command.parser().parse_args(["run", *given]))
    code, said, complaint = run(*given)
    assert code == 1 and "nothing is reported of it" in complaint and "median" not in said


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_a_figure_is_drawn(kind, run, tmp_path):
    picture = tmp_path / f"figure.{kind}"
    given = ("int8_linear", "--device", "cpu", "--smallest", "--shape", "8x16", "--shape", "16x8", "--rows", "1,4")
    code, said, _ = run(*given, "--peers", "fp32", "--plot", str(picture))
    assert code == 0 and str(picture) in said and picture.stat().st_size > 5000
    if kind == "svg":
        text = picture.read_text()
        for words in ("8 -&gt; 16", "16 -&gt; 8", "M (rows)", "time of a call", "fraction of the roofline"):
            assert words in text
        assert OURS in text and "fp32 nn.Linear" in text and plot.ROOFLINE in text


def test_a_figure_needs_matplotlib(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    code, _, complaint = run("int8_linear", "--device", "cpu", "--smallest", "--shape", "1x8x8", "--plot")
    assert code == 2 and "pip install 'sparseq[bench]'" in complaint


def test_times_and_rates_have_units():
    assert [seconds(value) for value in (2.5, 1.25e-3, 3e-5, 4.2e-8)] == ["2.5 s", "1.25 ms", "30 us", "42 ns"]
    assert rate(5.12e10, "B/s") == "51.2 GB/s" and rate(2e12, "op/s") == "2 Top/s"


def test_arguments_reach_an_op_by_position_whatever_it_takes_by_keyword():
    x = torch.randn(3, 8)
    values, scales = CURRENT.bind("quantize_rows", x)()
    assert values.dtype == torch.int8 and scales.shape == (3,)
    assert CURRENT.complete("int8_linear", [x, x, x])[3:] == (None, None, "none", None, None)

    class Typed:
        """An op that takes its settings by keyword."""

        __name__ = "sparseq_kernels"

        @staticmethod
        def quantize_rows(x, *, bits):
            return x, bits

    packages = Packages(Typed(), CURRENT.layers)
    assert packages.bind("quantize_rows", x)() == (x, 8) and packages.bind("quantize_rows", x, 16)() == (x, 16)
