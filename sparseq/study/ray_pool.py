"""The jobs of a study on a Ray cluster: each is placed where its processors and GPUs are free.

All nodes read and write the study's folder, so it must be on a disk that they share, and they must have the same
version of sparseq. Ray comes with `pip install 'sparseq[ray]'`.
"""

import json
import os
import socket
from dataclasses import asdict
from pathlib import Path
from time import sleep
from typing import Any

import sparseq
from sparseq.errors import InputError
from sparseq.extras import install
from sparseq.reading import brief, build

from .folder import STUDY
from .jobs import Job, Outcome, carry_out

LOCAL = "local"
"""The address that stands for a cluster of this machine alone, started for the study."""

_ANSWERS_WITHIN = 20.0
"""Seconds that a cluster has to answer."""


class RayPool:
    """A `Pool` of a Ray cluster.

    The number of jobs at once follows the nodes that are alive. A job whose node or process dies has the outcome
    `lost`.
    """

    def __init__(self, address: str, folder: Path, *, cpus: int = 1, gpus: float = 0.0) -> None:
        """address: of the cluster, such as "10.0.0.1:6379", "auto" for the one that this machine belongs to, or LOCAL.

        folder: of the study. cpus, gpus: of each job; a share of a GPU is possible.

        Raises InputError if Ray is not installed, if no cluster answers, and if no node has so many.
        """
        try:
            import ray
        except ModuleNotFoundError as error:
            raise InputError(f"--ray needs Ray, which is not installed: {install('ray')}") from error
        self._ray, self._cpus, self._gpus, self._folder = ray, cpus, gpus, folder
        _connect(ray, address)
        self._running: dict[Any, Job] = {}
        self._run = ray.remote(max_retries=0, num_cpus=cpus, num_gpus=gpus, scheduling_strategy="SPREAD")(_carry_out)
        if self._room() < 1:
            self.close()
            raise InputError(
                f"no node of the cluster at --ray {address} has {cpus} processors and {gpus:g} GPUs for a run: give "
                "fewer --threads or --gpus"
            )

    def free(self) -> int:
        return max(0, self._room() - len(self._running))

    def submit(self, job: Job) -> None:
        found = self._run.remote(json.dumps(asdict(job)), str(self._folder), self._cpus, sparseq.__version__)
        self._running[found] = job

    def wait(self, seconds: float) -> list[Outcome]:
        if not self._running:
            sleep(seconds)  # no node is alive; one may come
            return []
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        return [self._outcome(one) for one in ready]

    def close(self) -> None:
        for one in self._running:
            self._ray.cancel(one, force=True)
        self._ray.shutdown()

    def _outcome(self, one: Any) -> Outcome:
        job = self._running.pop(one)
        errors = self._ray.exceptions
        try:
            return build(Outcome, json.loads(self._ray.get(one)))
        except (
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.ObjectLostError,
            errors.OutOfMemoryError,
        ) as error:
            return Outcome(job.name, f"its node or process was lost ({type(error).__name__})", lost=True)
        except errors.RayError as error:
            return Outcome(job.name, f"Ray could not run it ({brief(error)})")

    def _room(self) -> int:
        """How many jobs the nodes that are alive take together."""
        found = 0
        for node in self._ray.nodes():
            if node["Alive"]:
                has = node["Resources"]
                by_cpus = int(has.get("CPU", 0) // self._cpus)
                found += min(by_cpus, int(has.get("GPU", 0) / self._gpus)) if self._gpus else by_cpus
        return found


def _connect(ray: Any, address: str) -> None:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # without it Ray prints a warning
    _quiet()
    try:
        _knock(address)
        if address == LOCAL:
            ray.init(log_to_driver=False, include_dashboard=False, logging_level="ERROR")
        else:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (OSError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise InputError(
            f"no Ray cluster answers at --ray {address} ({brief(error)}): start one with `ray start --head`, and give "
            "the address that it prints"
        ) from error


def _knock(address: str) -> None:
    """Raises OSError if nothing listens at HOST:PORT, which Ray itself finds out after minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _ANSWERS_WITHIN).close()


def _quiet() -> None:
    """Keeps Ray from printing the state of its processes when a node dies; the study says it in a line."""
    try:
        from ray._private.ray_logging import global_worker_stdstream_dispatcher as prints

        prints.remove_handler("ray_print_logs")
    except (ImportError, AttributeError, KeyError):  # not Ray's public interface; without it there is more to read
        return


def _carry_out(job: str, folder: str, cpus: int, version: str) -> str:
    """In a process of a node: a job and its outcome, as JSON."""
    import torch

    asked = build(Job, json.loads(job))
    host = os.uname().nodename
    if not (Path(folder) / STUDY).exists():
        return _answer(asked, f"node {host} does not see {folder}: --out must be on a disk that all nodes share")
    if sparseq.__version__ != version:
        return _answer(asked, f"node {host} has sparseq {sparseq.__version__}, not {version}: install the same")
    torch.set_num_threads(cpus)
    return json.dumps(asdict(carry_out(asked)))


def _answer(job: Job, reason: str) -> str:
    return json.dumps(asdict(Outcome(job.name, reason)))
