import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fake_cuda import FakeCuda

triton = pytest.importorskip("triton")

from bench.check import WrongResultError  # noqa: E402
from bench.clock import CudaClock  # noqa: E402
from bench.target import Target  # noqa: E402
from sparseq_kernels import InputError  # noqa: E402
from sparseq_kernels.triton.runtime import heuristics, tuned  # noqa: E402
from sparseq_kernels.triton.runtime.device import Device  # noqa: E402
from sparseq_kernels.triton.runtime.gemm_config import GemmConfig, forced_config  # noqa: E402
from sparseq_kernels.triton.runtime.heuristics import int8_config  # noqa: E402
from tools import tune, tune_cases  # noqa: E402
from tools.tune_cases import (  # noqa: E402
    OPERATIONS,
    Inputs,
    Product,
    by_the_rules,
    candidates,
    expected_key,
    products,
)

ROOT = Path(__file__).parents[2]
H100 = Device("sm_90", 132, 232448, "NVIDIA H100 80GB HBM3")
ENTRY = {"kind": "int8", "M": 128, "N": 768, "K": 3072, "ratio": 0.9, "of": "something"}
CONFIG = {"block_m": 64, "block_n": 32, "block_k": 256, "num_warps": 4, "num_stages": 3, "quantize_inside": False}
CUDA = Target("cuda", False)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An own, empty folder of tuned files."""

    def forget():
        tuned._configs.cache_clear()
        tune_cases.forget()

    monkeypatch.setattr(tuned, "FOLDER", tmp_path)
    forget()
    yield tmp_path
    forget()


def write(folder, *entries, device=H100.name, version=triton.__version__, name="a.json"):
    tuned._configs.cache_clear()
    tune_cases.forget()
    content = {"device": device, "triton": version, "configs": list(entries)}
    (folder / name).write_text(json.dumps(content))


def planned(M, N=768, K=3072, device=H100):
    return int8_config(M, N, K, "none", device)


def test_a_measured_plan_overrules_the_rules_in_its_bucket(folder):
    measured = GemmConfig(**CONFIG)
    assert planned(128) != measured
    write(folder, ENTRY | CONFIG)
    assert planned(128) == planned(65) == measured
    for other in (planned(64), planned(129), planned(128, N=769), planned(128, K=3073)):
        assert other != measured
    assert planned(128, device=Device("sm_90", 132, 232448, "another")) != measured
    assert planned(128, device=Device("sm_90", 132, 232448)) != measured


@pytest.mark.parametrize(("count", "bucket"), [(0, 1), (1, 1), (2, 2), (3, 4), (16384, 16384), (99999, 16384)])
def test_buckets(count, bucket):
    assert tuned.bucket(count) == bucket


@pytest.mark.parametrize("version", ["2.9.0", "99.0.0"])
def test_configs_of_another_triton_are_left_alone(folder, version):
    before = planned(128)
    write(folder, ENTRY | CONFIG, version=version)
    assert planned(128) == before
    write(folder, ENTRY | CONFIG, version=".".join(triton.__version__.split(".")[:2]) + ".77")
    assert planned(128) == GemmConfig(**CONFIG)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"kind": "other"}, "number 1, that is of no known kind"),
        ({"M": "128"}, "the M '128'"),
        ({"N": None}, "the N None"),
        ({"block_m": 48}, "the block_m 48"),
        ({"num_stages": 0}, "the num_stages 0"),
        ({"quantize_inside": 1}, "the quantize_inside 1"),
        ({"num_warps": True}, "the num_warps True"),
        ({"block_k": None}, "the block_k None"),
    ],
)
def test_a_malformed_config_is_named(folder, change, complaint):
    write(folder, ENTRY | CONFIG | change)
    with pytest.raises(InputError, match=rf"a\.json has a config, .*{complaint}.*python -m tools.tune"):
        planned(128)


@pytest.mark.parametrize("text", ["", "[]", '{"device": 1, "triton": "3.6.0", "configs": []}', '{"device": "a"}'])
def test_a_malformed_file_is_named(folder, text):
    (folder / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json .*delete it, or write it again"):
        planned(128)


def test_files_that_are_shipped_can_be_read():
    for path in tuned.FOLDER.glob("*.json"):
        content = tuned._content(path)
        assert content["configs"] and all(tuned._entry(path, 1, entry) for entry in content["configs"])


def test_what_matters_most_is_measured_first():
    every = products(list(OPERATIONS), CUDA)
    assert len(set(every)) == len(every) == 15 * 15
    assert {one.M for one in every[:6]} == {8192} and every[0].outputs == 1024
    urgent = [one for one in every if one.rank == (False, False)]
    assert urgent == every[: len(urgent)] and {one.M for one in urgent} == set(tune_cases.FIRST_ROWS)
    assert len(urgent) == 6 * 5
    assert every[-1].rank == (True, True)


@pytest.mark.parametrize("product", products(list(OPERATIONS), CUDA)[::23], ids=str)
def test_every_product_has_candidates_that_differ_from_each_other(product):
    key = expected_key(product)
    found = candidates(product, key, H100, CUDA)
    assert 3 <= len(found) == len(set(found)) <= 24
    assert all(config.block_m <= max(64, 2 * key[1]) for config in found)
    assert all(config.split_k == 1 or 2 * config.split_k * config.block_k <= key[3] for config in found)
    assert not product.skinny or all(config.block_m in (16, 32) for config in found)


class Measured:
    """Stands in for the GPU: a product that takes as long as `seconds` says of the config in force."""

    def __init__(self, seconds, wrong=(), fails=()):
        self.cuda = FakeCuda()
        self.seconds, self.wrong, self.fails = seconds, wrong, fails

    def inputs(self, product, target):
        def run():
            config = forced_config() or planned(product.M, product.outputs, product.inputs)
            if config in self.fails:
                raise RuntimeError("out of resource: shared memory")
            self.cuda.work(self.seconds(config))()
            return torch.tensor([2.0 if config in self.wrong else 1.0])

        def check(result, by_rule):
            if result != by_rule:
                raise WrongResultError("wrong")

        return Inputs(run, check)


PRODUCT = Product("int8_linear", 128, 768, 3072)
CANDIDATES = [GemmConfig(64, 32 * n, 64, 4, 2) for n in (1, 2, 4)]


@pytest.fixture
def stand_in(monkeypatch, folder):
    def use(measured, given=(PRODUCT,)):
        monkeypatch.setattr(tune, "make_inputs", measured.inputs)
        monkeypatch.setattr(tune, "current", lambda: H100)
        monkeypatch.setattr(tune, "candidates", lambda *unused: CANDIDATES)
        monkeypatch.setattr(tune, "products", lambda *unused: list(given))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda *unused: H100.name)
        monkeypatch.setattr(Target, "clock", lambda self: CudaClock(measured.cuda))
        return folder / f"nvidia-h100-80gb-hbm3-triton{triton.__version__}.json"

    return use


def test_the_fastest_sound_candidate_is_kept_and_used(stand_in, folder, capsys):
    times = {CANDIDATES[0]: 1e-5, CANDIDATES[1]: 2e-5, CANDIDATES[2]: 3e-6}
    path = stand_in(Measured(lambda config: times.get(config, 4e-5), wrong=[CANDIDATES[2]], fails=[CANDIDATES[1]]))
    assert tune.tune(["int8_linear"], CUDA, 60, folder) == 0
    said = capsys.readouterr().out
    assert "1 candidates did not run here, 1 were wrong, 0 products failed" in said and "0.25" in said
    [entry] = json.loads(path.read_text())["configs"]
    assert entry["ratio"] == 0.25 and entry["of"] == str(PRODUCT) and (entry["M"], entry["K"]) == (128, 3072)
    tuned._configs.cache_clear()
    assert planned(100) == CANDIDATES[0]
    # Everything is done: nothing is measured again.
    stand_in(Measured(lambda config: 1 / 0))
    assert tune.tune(["int8_linear"], CUDA, 60, folder) == 0 and len(json.loads(path.read_text())["configs"]) == 1


@pytest.mark.parametrize("others", [1e-5, 0.99e-5])
def test_what_does_not_win_by_more_than_noise_is_not_kept(stand_in, folder, others):
    path = stand_in(Measured(lambda config: others if config in CANDIDATES else 1e-5))
    assert tune.tune(["int8_linear"], CUDA, 60, folder) == 0
    content = json.loads(path.read_text())
    assert content["configs"] == [] and content["unchanged"] == [str(PRODUCT)] and content["device"] == H100.name


def test_the_rules_alone_are_measured_against(stand_in, folder):
    write(folder, ENTRY | CONFIG)
    asked = []
    path = stand_in(Measured(lambda config: asked.append(config) or (1e-5 if config in CANDIDATES else 2e-5)))
    tune.tune(["int8_linear"], CUDA, 60, folder)
    assert asked and GemmConfig(**CONFIG) not in asked and json.loads(path.read_text())["configs"]


def test_products_that_fail_are_counted_and_too_many_end_it(stand_in, folder, capsys):
    given = [Product("int8_linear", 1 << i, 768, 3072) for i in range(6, 14)]
    stand_in(Measured(lambda config: 1 / 0), given)
    assert tune.tune(["int8_linear"], CUDA, 60, folder) == tune.MOST_FAILURES
    said = capsys.readouterr().out
    assert "ZeroDivisionError" in said and "3 products left" in said
    assert tune.tune(["int8_linear"], CUDA, -1, folder) == 0 and "8 products left" in capsys.readouterr().out


def test_a_product_of_several_plans_is_refused(stand_in, folder, monkeypatch):
    measured = Measured(lambda config: 1e-5)
    stand_in(measured)
    monkeypatch.setattr(tune, "make_inputs", lambda *unused: Inputs(lambda: torch.ones(1), lambda *results: None))
    with pytest.raises(RuntimeError, match="looked up for 0 products"):
        tune.tune_product(PRODUCT, CUDA, CudaClock(measured.cuda), tune.Found())


def test_what_the_rules_are_asked_for_is_noted_and_nothing_is_left_behind(folder):
    find = tuned.find
    with by_the_rules() as asked:
        tune_cases.forget()
        planned(100)
    assert asked == [("int8", 128, 768, 3072)] and tuned.find is find
    assert heuristics.int8_config.cache_info().currsize == 0


def test_an_unknown_op_is_refused(capsys):
    with pytest.raises(SystemExit):
        tune.main(["--op", "other", "--device", "cuda"])
    assert "configs are for int8_linear" in capsys.readouterr().err


def test_processes_that_compile_are_ended_in_time(monkeypatch):
    monkeypatch.setattr(tune, "ROOT", Path("/"))
    monkeypatch.setattr(tune.sys, "executable", "sleep")
    started = []
    popen = subprocess.Popen

    def sleep(command, cwd):
        started.append(popen(["sleep", "60"], cwd=cwd))
        return started[-1]

    monkeypatch.setattr(tune.subprocess, "Popen", sleep)
    tune.warm_in_parallel(["int8_linear"], CUDA, 2, 0.2)
    assert len(started) == 2 and all(process.returncode for process in started)


@pytest.mark.slow
def test_all_of_it_runs_in_the_interpreter(tmp_path):
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    environment = os.environ | {"TRITON_INTERPRET": "1", "SPARSEQ_BENCH": "ci", "PYTHONPATH": paths}
    command = [sys.executable, "-m", "tools.tune", "--device", "interpreter", "--out", str(tmp_path), "--jobs", "1"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    [path] = tmp_path.glob("interpreter-triton*.json")
    content = json.loads(path.read_text())
    every = products(list(OPERATIONS), Target("interpreter", True))
    assert len(content["configs"]) + len(content["unchanged"]) == len(every) == 2
    keys = {str(product): expected_key(product) for product in every}
    assert all(
        tuple(config[name] for name in ("kind", *tuned.SIZES)) == keys[config["of"]] for config in content["configs"]
    )
    assert " 0 candidates did not run here, 0 were wrong, 0 products failed" in done.stdout
