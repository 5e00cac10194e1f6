"""Whole studies, with real runs in processes of their own."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sparseq import checkpoint
from sparseq.cli import main
from sparseq.study import Options, plan_study, run_study
from sparseq.study.cells import cells_of
from sparseq.study.folder import StudyFolder
from sparseq.study.records import DONE, FAILED
from sparseq.study.report import write_report
from sparseq.study.study_file import Study
from sparseq.train import Recipe, compress
from sparseq_kernels.backends import runnable

ONE = Options(jobs=1, threads=1)


@pytest.mark.slow
def test_a_study_runs_reports_and_has_nothing_left_to_do(
    study_file: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """One size cannot be loaded: its cells fail, with the reason, are listed so in the report and are in none of its
    tables as a number; all others are done and timed."""
    path = study_file(sizes=f"[[sizes]]\nname = 'gone'\nmodel = '{tmp_path / 'gone'}'", more="held_out_rows = 6")
    out = str(tmp_path / "study")
    given = ["study", "run", str(path), "--out", out, "--threads", "1"]
    assert main([*given, "--dry-run", "--json"]) == 0
    planned = json.loads(capfd.readouterr().out)
    assert planned["cells"] == 9 == len(planned["to_run"])
    assert {cell["cell"] for cell in planned["to_run"] if cell["seconds"] is None} == {
        cell["cell"] for cell in planned["to_run"] if "-gone-" in cell["cell"]
    }
    assert not Path(out).exists()
    assert main([*given, "--keep", "metrics"]) == 1
    said = capfd.readouterr()
    assert "there is no folder" in said.out and "6 of 9 cells done, 3 failed" in said.out
    assert "Traceback" not in said.err + said.out and "9/9" in said.err
    results = StudyFolder(out).results()
    by_state = {state: [r for r in results.records if r.state == state] for state in (DONE, FAILED)}
    assert [len(records) for records in by_state.values()] == [6, 3]
    assert all(record.size == "gone" and record.score is None and record.reason for record in by_state[FAILED])
    for record in by_state[DONE]:
        assert record.score is not None and record.held_out_score is not None and record.rows == 40
        assert set(record.latency) == {"1", "32"} and record.latency["1"].milliseconds > 0
        packed, native = {"qat", "ptq"} & set(record.methods), "native" in runnable()
        # A processor with AMX has a faster product for many tokens, outside that call.
        assert record.way and (not (packed and native) or not record.way.startswith("layer by layer"))
    teacher = next(record for record in by_state[DONE] if record.is_teacher)
    assert teacher.latency["32"].speedup == 1.0
    kept = [path.parent.name for path in Path(out).glob("cells/*/model.safetensors")]
    assert kept == [teacher.cell]
    assert main([*given, "--keep", "metrics", "--only", "*-L[12]-*", "--json"]) == 0
    again = json.loads(capfd.readouterr().out)
    assert (again["done"], again["failed"]) == (6, {})
    files = write_report(results, tmp_path / "report", max_drop=100.0)
    tables = {path.stem: list(csv.DictReader(path.open(encoding="utf-8"))) for path in files.tables}
    assert {row["size"] for row in tables["failed"]} == {"gone"} and all(row["reason"] for row in tables["failed"])
    ratios = {row["size"]: row["QAT (times)"] for row in tables["ratios-stored-bytes"]}
    assert list(ratios) == ["L2", "L1", "gone"] and ratios["gone"] == ""
    done = [row for row in tables["task-1"] if row["size"] != "gone"]
    assert len(done) == 6 and all(
        float(row["speed-up, batch 1 (times)"]) > 0 and row["held out (points)"] for row in done
    )
    assert tables["recipe"][0]["task"] == "words"


@pytest.mark.slow
def test_a_killed_study_goes_on(study_file: Callable[..., Path], tmp_path: Path) -> None:
    """Killed outright between two cells' ends: what was done stays as it was, and no process is left behind. What is
    run then, after others in the same process, has the same bits as alone."""
    path, out = study_file(), tmp_path / "study"
    command = [sys.executable, "-m", "sparseq.cli", "study", "run", str(path), "--out", str(out), "--no-timing"]
    process = subprocess.Popen([*command, "--threads", "1"], stderr=subprocess.DEVNULL, start_new_session=True)
    end = time.monotonic() + 120
    while len(list(out.glob("cells/*/metrics.json"))) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = {file: file.stat().st_mtime_ns for file in out.glob("cells/*/metrics.json")}
    assert 2 <= len(done) < 5
    while _working(out) and time.monotonic() < end:
        time.sleep(0.1)
    assert not _working(out)
    summary, results = run_study(path, out, Options(jobs=1, threads=1, time=False), {}, silent=True)
    assert summary.done == len(results.records) == 6 and not summary.failed
    assert all(file.stat().st_mtime_ns == written for file, written in done.items())
    last = cells_of(Study.from_file(path))[-1]
    assert last.starts_from == last.taught_by and last.recipe.methods == ("qat", "kd", "mp")
    folder = StudyFolder(out)
    recipe = Recipe.from_file(folder.cell(last.name) / "recipe.toml")
    compress(recipe.replace(out=str(tmp_path / "alone")))
    ours, alone = (checkpoint.load(place).state_dict() for place in (folder.cell(last.name), tmp_path / "alone"))
    assert ours.keys() == alone.keys() and all(torch.equal(ours[name], alone[name]) for name in ours)


def _working(out: Path) -> bool:
    """Whether a process has the study's log open."""
    found = False
    for number in Path("/proc").glob("[0-9]*"):
        try:
            found |= any(os.readlink(one).startswith(str(out)) for one in (number / "fd").iterdir())
        except OSError:
            continue
    return found


def test_a_folder_of_something_else_is_refused(
    study_file: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = study_file()
    full = tmp_path / "full"
    full.mkdir()
    (full / "notes.txt").write_text("")
    assert main(["study", "run", str(path), "--out", str(full)]) == 2
    assert "is not empty (notes.txt is in it) and holds no study" in capsys.readouterr().err
    other = tmp_path / "other"
    study = Study.from_file(path)
    StudyFolder(other).begin(study, cells_of(study))
    assert main(["study", "run", str(study_file(name="another")), "--out", str(other)]) == 2
    assert "holds another study, 'tiny study'" in capsys.readouterr().err
    study_file()
    assert main(["study", "run", str(path), "--out", str(other), "--only", "nothing*"]) == 2
    assert "matches no cell" in capsys.readouterr().err
    assert main(["study", "run", str(path), "--out", str(other), "--grid", "nothing"]) == 2
    assert "no such grid in the study; its grids are subsets" in capsys.readouterr().err
    assert main(["study", "run", str(path), "--out", str(other), "--set", "epocs=1"]) == 2
    assert "names no setting" in capsys.readouterr().err
    assert main(["study", "run", str(path), "--out", str(other), "--jobs", "0"]) == 2
    assert "whole number of at least 1" in capsys.readouterr().err
    assert main(["study", "run", str(path), "--out", str(other), "--gpus", "nan"]) == 2
    assert "a number of at least 0" in capsys.readouterr().err
    assert sorted(path.name for path in full.iterdir()) == ["notes.txt"]


def test_a_grid_that_was_left_out_comes_back(study_file: Callable[..., Path], tmp_path: Path) -> None:
    """Its cells are done, but not among those that the folder lists."""
    one, two = (f'[[grids]]\nname = "{name}"\nmethods = "{name}"\n' for name in ("qat", "mp"))
    folder = StudyFolder(tmp_path / "study")
    for grids in (one + two, one):
        study = Study.from_file(study_file(grids))
        cells = cells_of(study)
        folder.begin(study, cells)
        for cell in cells:
            folder.mark(cell)
            folder.cell(cell.name).mkdir(parents=True, exist_ok=True)
            (folder.cell(cell.name) / "metrics.json").write_text("{}")
    planned = plan_study(study_file(one + two), folder.path, ONE, {})
    assert len(planned.cells) > 0 and planned.to_run == ()
