import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bench import common
from bench.kernels.conftest import Deadline
from bench.target import Target
from tools import gpu, gpu_host
from tools.gpu import Run, Step, steps

ROOT = Path(__file__).parents[2]


def python(code, seconds=1.0):
    return lambda _: (sys.executable, "-c", code)


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "out", tmp_path / "work", dry=True)


def test_a_step_that_fails_or_hangs_is_noted_and_the_rest_goes_on(run, monkeypatch, capsys, tmp_path):
    child = tmp_path / "child"
    sleeps = "import subprocess; p = subprocess.Popen(['sleep', '60']); "
    hang = sleeps + f"open({str(child)!r}, 'w').write(str(p.pid)); p.wait()"
    given = [
        Step("fails", 1, python("print('why it fails'); raise SystemExit(3)")),
        Step("hangs", 1, python(hang)),
        Step("absent", 1, lambda _: "there is no such tool"),
        Step(
            "fine", 1, python("import os; print(os.environ['MORE'], os.environ['TRITON_INTERPRET'])"), {"MORE": "more"}
        ),
    ]
    monkeypatch.setattr(gpu, "steps", lambda _: list(given))
    assert gpu.everything(run.out, 0.25, dry=True) == 2
    said = capsys.readouterr().out
    assert "why it fails" in said and "left out: there is no such tool" in said and "failed with exit code 3" in said
    found = json.loads((run.out / "results.json").read_text())
    assert [(one["name"], one["failed"]) for one in found["steps"]] == [
        ("fails", True), ("hangs", True), ("absent", False), ("fine", False),
    ]  # fmt: skip
    assert found["steps"][1]["outcome"].startswith("stopped after")
    assert "more 1" in (run.out / "log.txt").read_text() and "| hangs | stopped" in (run.out / "summary.md").read_text()
    with pytest.raises(ProcessLookupError):  # what a stopped step started is gone too
        for _ in range(50):
            os.kill(int(child.read_text()), 0)
            time.sleep(0.1)


def test_a_step_that_ignores_being_ended_is_killed(monkeypatch):
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline()
    wait = process.wait
    monkeypatch.setattr(process, "wait", lambda timeout: wait(min(timeout, 0.2)))
    assert gpu._wait(process, 0.1).startswith("stopped") and wait() == -signal.SIGKILL


def test_time_is_shared_and_what_is_left_over_goes_on(monkeypatch, tmp_path):
    given = []
    shares = (("a", 1), ("b", 1), ("c", 2))
    monkeypatch.setattr(gpu, "steps", lambda _: [Step(name, share, lambda s: "left out") for name, share in shares])
    monkeypatch.setattr(Run, "take", lambda self, step, seconds: (given.append(seconds), self.outcomes.append(
        gpu.Outcome(step.name, 0.0, "done", False))))  # fmt: skip
    monkeypatch.setattr(gpu.time, "monotonic", lambda: 100.0)
    assert gpu.everything(tmp_path / "out", 1.0, dry=True) == 0
    assert given == [15.0, 20.0, 60.0]


def commands(run, seconds=50.0):
    return {step.name: step.command(seconds) for step in steps(run)}


def test_the_steps_of_a_gpu(run, monkeypatch):
    real = Run(run.out, run.work, dry=False)
    monkeypatch.setattr(gpu.shutil, "which", lambda name: None)
    monkeypatch.setattr(gpu.glob, "glob", lambda pattern: [])
    found = commands(real)
    assert list(found) == [
        "machine", "ceilings", "tests", "memcheck", "tune", "int8_linear", "qat_linear", "sparse", "compiled",
        "encoder", "host", "rest",
    ]  # fmt: skip
    assert found["memcheck"] == "there is no compute-sanitizer"
    assert "-k" not in found["tests"] and found["tune"][found["tune"].index("--out") + 1] == str(gpu.TUNED)
    assert "--seconds" in found["int8_linear"] and found["int8_linear"][-1] == "bench/kernels/bench_int8_linear.py"
    assert "interpreter" not in str(found) and "cuda" in str(found)
    benched = set(re.findall(r"bench_(\w+)\.py", str(found)))
    existing = {path.stem.removeprefix("bench_") for path in (ROOT / "bench" / "kernels").glob("bench_*.py")}
    # A packed layer is int8_linear there, and what its call costs the host has a step of its own.
    assert existing - benched == {"packed_linear"} and benched <= existing
    environment = real.environment({"A": "b"})
    assert environment["A"] == "b" and "TRITON_INTERPRET" not in set(environment) - set(os.environ)
    assert not [name for name in environment if name.startswith("PYTEST_")]


def test_tests_are_shared_among_processes_where_that_is_installed(run, monkeypatch):
    real = Run(run.out, run.work, dry=False)
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: None)
    assert "-n" not in commands(real)["tests"]
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: name)
    assert "-n" in commands(real)["tests"]


def test_the_sanitizer_is_found_on_the_path_or_beside_cuda(run, monkeypatch):
    monkeypatch.setattr(gpu.shutil, "which", lambda name: f"/bin/{name}")
    command = commands(Run(run.out, run.work, dry=False))["memcheck"]
    assert command[:5] == ["/bin/compute-sanitizer", "--tool", "memcheck", "--error-exitcode", "9"]
    assert command[-2:] == ["-m", "memcheck"]
    monkeypatch.setattr(gpu.shutil, "which", lambda name: None)
    monkeypatch.setattr(gpu.glob, "glob", lambda pattern: ["/usr/local/cuda-13.0/bin/compute-sanitizer"])
    assert gpu.sanitizer() == "/usr/local/cuda-13.0/bin/compute-sanitizer"


def test_every_ops_kernels_are_checked_for_memory_errors():
    files = (ROOT / "tests" / "triton").glob("test_triton_*.py")
    unmarked = {path.stem.removeprefix("test_triton_") for path in files if "mark.memcheck" not in path.read_text()}
    assert unmarked == {
        "fused",
        "launch_cache",
        "launch_cache_inputs",
        "launch_cache_layers",
        "layers",
        "packed_sources",
        "path",
        "weight_cache",
    }  # which run the ops' kernels


def test_a_gpu_is_described(monkeypatch, tmp_path):
    properties = type(
        "Properties", (), {"multi_processor_count": 132, "total_memory": 80 << 30, "L2_cache_size": 50 << 20}
    )
    for name, value in {
        "get_device_properties": properties, "current_device": 0, "get_device_name": "NVIDIA H100 80GB HBM3",
        "get_device_capability": (9, 0), "is_available": True,
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, lambda *unused, value=value: value)
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 580.1\n")
    tool.chmod(0o755)
    common._driver.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert gpu.main(["--machine", str(tmp_path / "machine.json")]) == 0
    found = json.loads((tmp_path / "machine.json").read_text())["machine"]
    assert found["gpu"] == "NVIDIA H100 80GB HBM3" and found["driver"] == "580.1" and found["cache_mb"] == 50
    assert found["capability"] == "9.0" and found["processors"] == 132
    assert common.slug(found) == "nvidia-h100-80gb-hbm3"
    common._driver.cache_clear()
    monkeypatch.setenv("PATH", "")
    assert common.gpu_machine()["driver"] == "unknown"
    common._driver.cache_clear()


def test_a_copy_without_its_history_can_say_its_commit(monkeypatch, tmp_path):
    monkeypatch.setattr(common, "ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("SPARSEQ_COMMIT", raising=False)
    assert common.commit() == "unknown"
    monkeypatch.setenv("SPARSEQ_COMMIT", "abc")
    assert common.commit() == "abc"


def test_ops_share_the_time_that_is_left(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    deadline = Deadline(12.0, ops=3)
    assert not deadline.over("a") and deadline.ends["a"] == 4.0
    now[0] = 5.0
    assert deadline.over("a") and not deadline.over("b") and deadline.ends["b"] == 5 + 7 / 2
    now[0] = 20.0
    assert not deadline.over("c") and not Deadline(None, 1).over("a")
    now[0] = 20.1
    assert deadline.over("c")


def test_the_hosts_part_is_measured(monkeypatch, tmp_path):
    monkeypatch.setenv("SPARSEQ_BENCH", "ci")
    target = Target("cpu", True)
    assert set(gpu_host.steady(target)) == {"packed", "nn.Linear"}
    assert gpu_host.main(["--device", "cpu", "--first"]) == 0
    monkeypatch.setattr(gpu_host, "in_a_process", lambda target: {"first": 1.0})
    assert gpu_host.main(["--device", "cpu", "--out", str(tmp_path / "host.json")]) == 0
    assert json.loads((tmp_path / "host.json").read_text())["cache_found"] == {"first": 1.0}


# The steps whose programs other tests do not run at their smallest.
FEW = ("ceilings", "tests", "host", "rest")
DENSE = ("int8_linear", "int8_linear_compiled", "qat_linear", "encoder")


@pytest.mark.parametrize(
    ("only", "steps_taken", "ops"),
    [
        pytest.param(FEW, len(FEW), gpu.REST, marks=pytest.mark.slow, id="few"),
        pytest.param((), 12, (*DENSE, *gpu.SPARSE, *gpu.REST), marks=pytest.mark.exhaustive, id="all"),
    ],
)
def test_it_runs_on_the_cpu(only, steps_taken, ops, tmp_path):
    command = [sys.executable, "-m", "tools.gpu", "--dry-run", "--out", str(tmp_path), "--minutes", "15"]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    before = sorted(gpu.TUNED.iterdir())
    environment = os.environ | {"PYTHONPATH": paths}
    command += ["--only", *only] if only else []
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    log = (tmp_path / "log.txt").read_text()
    assert done.returncode == 0, done.stdout + log[-5000:]
    files = sorted(path.name for path in tmp_path.iterdir())
    assert len(files) <= 8 and {"summary.md", "results.json", "tests.xml", "log.txt"} <= set(files)
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in files) and sorted(gpu.TUNED.iterdir()) == before
    found = json.loads((tmp_path / "results.json").read_text())
    assert all(step["outcome"] == "done" for step in found["steps"]) and len(found["steps"]) == steps_taken
    assert {result["name"] for result in found["results"]} == {*ops}
    assert all("failed" not in row for result in found["results"] for row in result["rows"])
    assert found["ceilings"]["bandwidth"] > 0 and found["host"]["host_seconds"]["packed"] > 0
    assert " passed" in log


def test_a_step_that_there_is_not_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--out", str(tmp_path), "--only", "tests", "nonsense"])
    assert "there is no step 'nonsense': the steps are machine, ceilings" in capsys.readouterr().err
