"""What a run on a GPU leaves behind: goals, tables, and results in files of their own."""

import json

import pytest

from bench import common, goals
from bench.kernels.cases import ROWS
from bench.render import NO_RESULTS, render
from bench.tables import filled
from sparseq import InputError
from sparseq.timing import Comparison
from tools import gpu
from tools.gpu_results import page, unpack

MACHINE = {"gpu": "NVIDIA H100 80GB HBM3", "driver": "1.2", "cpu": "A CPU", "threads": 2, "cores": 2, "flags": []}
VERSIONS = {"torch": "2.11.0", "triton": "3.6.0"}


def row(M, ours=1.0, size="large", layer="1024 -> 1024", **more):
    names = {"sparseq": ours, "sparseq, x as int8": 0.8, "torch._int_mm": 0.9, "bf16 nn.Linear": 2.0, "fake": 5.0}
    times = Comparison({name: (1e-6 * seconds,) * 7 for name, seconds in names.items()})
    pairs = [("sparseq", "bf16 nn.Linear"), ("sparseq", "fake"), ("sparseq, x as int8", "torch._int_mm")]
    return {"case": {"size": size, "layer": layer, "M": M, "step": "forward"}} | times.as_dict(pairs) | more


def write(folder, op, rows, gpu=MACHINE["gpu"], date="2026-01-01"):
    content = {
        "name": op,
        "machine": MACHINE | {"gpu": gpu},
        "versions": VERSIONS,
        "commit": "abc",
        "date": date,
        "rows": rows,
    }
    common.write_json(folder / f"{op}-{common.words(gpu)}.json", content)


def test_goals_are_measured_over_the_larger_sizes(tmp_path, monkeypatch):
    monkeypatch.setattr(goals, "FAKE", "fake")
    limited = {"floor": {"datasheet": {"fraction": 0.5, "bound": "bytes", "seconds": 1e-6}}}
    floor = {"floor": {"datasheet": {"fraction": 0.6, "bound": "bytes", "seconds": 1e-6}}}
    small = row(8192, ours=100.0, size="tiny")
    failed = {"case": {"size": "base", "layer": "1 -> 2", "M": 8192, "step": "forward"}, "failed": "wrong"}
    write(
        tmp_path, "int8_linear", [row(8192), row(8192, ours=1.25, layer="a", **limited), row(1, **floor), small, failed]
    )
    write(tmp_path, "qat_linear", [row(8192, peak_bytes={"sparseq": 30, "bf16 nn.Linear": 40, "fake": 0})])
    lines = goals.goals(tmp_path).splitlines()
    by_name = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines[2:]}
    assert lines[0].count("| M =") == len(ROWS[True]) and "| limit, M = 8192 |" in lines[0]
    assert by_name["int8_linear of int8 x, times as fast as torch._int_mm"][1:3] == ["", "1.12 (1.12 to 1.12) met"]
    assert by_name["int8_linear, times as fast as bf16 nn.Linear"][1:3] == ["3.20", "1.80 (1.60 to 2.00) met"]
    assert by_name["int8_linear, fraction of the datasheet's floor"][-1] == "0.60 (0.60 to 0.60) missed"
    assert by_name["qat_linear, peak memory / bf16 nn.Linear's"][:3] == ["", "", "0.75 (0.75 to 0.75)"]
    assert by_name["qat_linear, times as fast as torch's fake-quant"][1:] == [""] * 6
    text = page([("tests", "done", "3")], {"machine": "x"}, tmp_path)
    assert "| tests | done | 3 |" in text and "## int8_linear" in text and "- machine: x" in text
    write(tmp_path, "int8_linear", [small])
    assert "0.02" in goals.goals(tmp_path)


def test_goals_and_tables_are_of_the_gpu_that_was_measured_last(tmp_path):
    marker = "<!-- table: goals -->\n<!-- end -->\n"
    assert NO_RESULTS in filled(marker, tmp_path)
    write(tmp_path, "int8_linear", [row(8192, ours=1.0)], "NVIDIA H100", "2026-01-02")
    write(tmp_path, "int8_linear", [row(8192, ours=0.5)], "NVIDIA H200", "2026-01-03")
    write(tmp_path, "qat_linear", [row(8192)], "NVIDIA H100", "2026-01-02")
    text = filled(marker, tmp_path)
    assert "\n\nNVIDIA H200, driver 1.2;" in text and "4.00 (4.00 to 4.00) met" in text and "2.00" not in text
    text = render("int8_linear", tmp_path)
    assert "0.25 [0.25, 0.25]" in text and "0.5 [0.5, 0.5]" not in text
    assert "Not shown here, kept in bench/results: NVIDIA H100, driver 1.2;" in text
    assert render("qat_linear", tmp_path).startswith("NVIDIA H100")


def test_goals_say_why_a_peer_is_absent(tmp_path):
    absent = {goals.TORCHAO: "torchao is not installed"}
    write(
        tmp_path, "int8_linear_compiled", [row(8192, absent=absent), row(1, absent={"another": "it is not installed"})]
    )
    write(tmp_path, "int8_linear", [row(1, absent={goals.INT_MM: "it needs more than 16 rows"}, ratios=[])])
    lines = {line.split("|")[1].strip(): line for line in goals.goals(tmp_path).splitlines()}
    assert lines["int8_linear, times as fast as torchao"].count("not installed") == 1
    assert "no peer" in lines["int8_linear of int8 x, times as fast as torch._int_mm"]


def test_a_gpus_results_are_rendered(tmp_path):
    floor = {"floor": {"datasheet": {"fraction": 0.6, "bound": "bytes", "seconds": 1e-6}}}
    failed = {
        "case": {"size": "large", "layer": "1024 -> 1024", "M": 1, "step": "forward"},
        "failed": "WrongResultError",
    }
    write(tmp_path, "int8_linear", [row(8192, **floor, absent={"torchao": "it is not installed"}), failed])
    text = render("int8_linear", tmp_path)
    assert "NVIDIA H100 80GB HBM3, driver 1.2; torch 2.11.0, triton 3.6.0; commit abc, 2026-01-01" in text
    assert "| large | 1024 -> 1024 | failed | 0.60 (bytes) |" in text and "| M = 1 | M = 8192 |" in text
    assert "time of sparseq, x as int8 / time of torch._int_mm" in text
    assert "Without torchao in 1 of 1: it is not installed" in text
    write(tmp_path, "int8_linear", [failed])
    assert "| failed |" in render("int8_linear", tmp_path)


def test_whole_models_are_rendered_as_they_were_timed(tmp_path):
    case = {"size": "BERT-base", "layer": "16 tokens", "sentences": 1, "step": "forward"}
    times = Comparison({name: (seconds,) * 7 for name, seconds in (("sparseq", 1e-3), ("torch", 2e-3))})
    timed = {"case": case} | times.as_dict([("sparseq", "torch")])
    graphs = timed | {"how": {"sparseq": "graph", "torch": "graph"}, "call_seconds": {"sparseq": 4e-3, "torch": 5e-3}}
    mixed = timed | {"how": {"sparseq": "graph", "torch": "events"}, "call_seconds": {"sparseq": 4e-3}}
    write(tmp_path, "encoder", [graphs, mixed, {"case": case, "failed": "WrongResultError"}])
    lines = [line.split("|")[2:-1] for line in render("encoder", tmp_path).splitlines() if line.startswith("| BERT")]
    found = [[cell.strip() for cell in line] for line in lines]
    of = "1 x 16 tokens"
    # Times that were taken in different ways make no ratio.
    assert found[:3] == [[of, "1 [1, 1]", "0.5 [0.5, 0.5]"], [of, "1 [1, 1]", ""], [of, "failed", ""]]
    assert found[3:] == [[of, "4", "5"], [of, "4", "2"], [of, "failed", ""]]
    write(tmp_path, "encoder", [{"case": case, "failed": "WrongResultError"}])
    assert "| failed |" in render("encoder", tmp_path)


def test_results_are_unpacked_to_a_file_each(tmp_path, monkeypatch, capsys):
    write(tmp_path, "int8_linear", [row(8192)])
    content = json.loads((tmp_path / "int8_linear-nvidia-h100-80gb-hbm3.json").read_text())
    common.write_json(tmp_path / "results.json", {"results": [content, None]})
    monkeypatch.setattr(gpu, "RESULTS", tmp_path / "results")
    assert gpu.main(["--unpack", str(tmp_path / "results.json")]) == 0
    assert json.loads((tmp_path / "results" / "int8_linear-nvidia-h100-80gb-hbm3.json").read_text()) == content
    with pytest.raises(InputError, match=r"is not what python -m tools\.gpu writes"):
        unpack(tmp_path / "absent.json", tmp_path)
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "--out DIR" in capsys.readouterr().err
