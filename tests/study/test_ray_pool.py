"""Studies on a Ray cluster: of two nodes on this machine, one of which is killed while it works."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sparseq.cli import main
from sparseq.errors import InputError
from sparseq.study import Options, run_study
from sparseq.study.jobs import Job
from sparseq.study.ray_pool import RayPool

ray: Any = pytest.importorskip("ray", reason="Ray is not installed: pip install 'sparseq[ray]'")

GRID = """
[[grids]]
name = "g"
methods = ["none", "qat"]
sizes = ["L2"]
seed = [0, 1]
epochs = 12
"""


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A cluster of two nodes with one processor each."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # other tests run beside it
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.add_node(num_cpus=1)
    yield made
    ray.shutdown()
    made.shutdown()


@pytest.mark.slow
def test_the_cells_of_a_killed_node_run_on_the_other(
    cluster: Any, study_file: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    out, killed = tmp_path / "study", []
    wait = RayPool.wait

    def kill_once_both_work(pool: RayPool, seconds: float) -> Any:
        found = wait(pool, min(seconds, 0.1))  # Both are at work for a second or two.
        at_work = {path.stem for path in out.glob("state/*.progress") if "training" in path.read_text("utf-8")}
        if not killed and len(at_work) == 2:
            node = cluster.worker_nodes.copy().pop()
            cluster.remove_node(node, allow_graceful=False)
            killed.append(at_work)
        return found

    monkeypatch.setattr(RayPool, "wait", kill_once_both_work)
    options = Options(ray=cluster.address, threads=1, time=False)
    summary, results = run_study(study_file(GRID), out, options, {})
    said = capfd.readouterr().err
    assert killed and said.count("its node or process was lost") == 1 and "it is begun again" in said
    assert "state-dump" not in said
    assert summary.done == len(results.records) and not summary.failed
    scores = {record.cell: record.score for record in results.records}
    # The same cells without a cluster: the same scores.
    _, alone = run_study(study_file(GRID), tmp_path / "alone", Options(threads=1, time=False), {}, silent=True)
    assert {record.cell: record.score for record in alone.records} == scores


@pytest.mark.slow
def test_what_a_node_lacks_is_said(cluster: Any, tmp_path: Path) -> None:
    def outcome(folder: Path, **options: Any) -> str:
        pool = RayPool(cluster.address, folder, **options)
        try:
            pool.submit(Job("a", str(tmp_path / "progress")))
            end = time.monotonic() + 240
            while not (found := pool.wait(1.0)) and time.monotonic() < end:
                pass
            return str(found[0].reason)
        finally:
            pool.close()

    assert "must be on a disk that all nodes share" in outcome(tmp_path / "nowhere")
    with pytest.raises(InputError, match="has 3 processors and 0 GPUs"):
        RayPool(cluster.address, tmp_path, cpus=3)


@pytest.mark.slow
def test_a_dead_address_is_one_sentence(
    study_file: Callable[..., Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "study"
    assert main(["study", "run", str(study_file()), "--out", str(out), "--ray", "127.0.0.1:1"]) == 2
    said = capfd.readouterr().err
    assert said.count("\n") == 1 and "no Ray cluster answers at --ray 127.0.0.1:1" in said
    assert not out.exists()


def test_a_study_waits_for_a_node() -> None:
    """Without asking the cluster all the time."""
    pool = object.__new__(RayPool)
    pool._running = {}
    began = time.monotonic()
    assert pool.wait(0.2) == [] and time.monotonic() - began >= 0.2
