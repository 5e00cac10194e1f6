"""`Options`: how a study is run. Its results do not depend on them."""

import os
from dataclasses import dataclass

from sparseq.errors import InputError
from sparseq_kernels.untrusted import quoted

KEEP = ("all", "metrics")


@dataclass(frozen=True)
class Options:
    """How a study is run.

    Attributes:
        jobs: runs beside each other, on this machine.
        threads: of each run; by default the processors shared among the jobs, and on a cluster 1.
        ray: address of a Ray cluster that runs the cells instead; see `sparseq.study.ray_pool`.
        gpus: of each run on the cluster. Here, process i uses GPU i by itself.
        keep: "all", or "metrics" to remove the models of finished and timed cells that no other cell needs.
        only: patterns of the names of cells to run, as in fnmatch; none for all.
        grids: names of the grids whose cells to run; none for all.
        time: whether finished cells are timed.

    Raises InputError for a `keep` that is not in KEEP, and for `gpus` without `ray`.
    """

    jobs: int = 1
    threads: int | None = None
    ray: str | None = None
    gpus: float = 0.0
    keep: str = "all"
    only: tuple[str, ...] = ()
    grids: tuple[str, ...] = ()
    time: bool = True

    def __post_init__(self) -> None:
        if self.keep not in KEEP:
            raise InputError(f"keep is {quoted(self.keep)}: give one of {', '.join(KEEP)}")
        if self.gpus and self.ray is None:
            raise InputError("--gpus is of runs on a cluster: give --ray too; here process i takes GPU i by itself")

    @property
    def threads_per_job(self) -> int:
        return self.threads or max(1, processors() // self.jobs)


def processors() -> int:
    """The number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
