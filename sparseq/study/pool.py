"""Processes on this machine that carry out the jobs of a study, one each at a time."""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import IO, Protocol

from sparseq.reading import build

from .jobs import Job, Outcome

LEAVING = 10.0
"""Seconds that a process has to end by itself."""


class Pool(Protocol):
    """Something that carries out jobs beside each other."""

    def free(self) -> int:
        """How many more jobs it takes now."""

    def submit(self, job: Job) -> None:
        """Begins a job. Only called if there is room."""

    def wait(self, seconds: float) -> list[Outcome]:
        """The jobs that have ended; waits up to `seconds` for one."""

    def close(self) -> None:
        """Ends everything, running jobs too."""


class LocalPool:
    """Worker processes on this machine.

    A process is started when it is needed, and does one job after another. If it dies, its job has the outcome `lost`,
    and the next job gets a new process. With GPUs, process i uses number i modulo their number.
    """

    def __init__(self, jobs: int, threads: int, logs: Path, gpus: int = 0) -> None:
        """jobs: processes. threads: of each. logs: the folder for what they print."""
        self._workers: list[_Worker | None] = [None] * jobs
        self._threads, self._logs, self._gpus = threads, logs, gpus
        self._selector = selectors.DefaultSelector()

    def free(self) -> int:
        return sum(worker is None or worker.job is None for worker in self._workers)

    def submit(self, job: Job) -> None:
        number = next(i for i, worker in enumerate(self._workers) if worker is None or worker.job is None)
        worker = self._workers[number]
        if worker is None or worker.process.poll() is not None:
            if worker is not None:
                self._remove(number)
            worker = self._workers[number] = _Worker(self._environment(number), self._logs / f"process-{number}.log")
            self._selector.register(worker.answers, selectors.EVENT_READ, number)
        worker.begin(job)

    def wait(self, seconds: float) -> list[Outcome]:
        found = []
        for key, _ in self._selector.select(seconds):
            number: int = key.data
            worker = self._workers[number]
            assert worker is not None
            line = worker.answers.readline()
            if line:
                found.append(build(Outcome, json.loads(line)))
                worker.job = None
                continue
            if worker.job is not None:
                found.append(Outcome(worker.job.name, worker.death(), lost=True))
            self._remove(number)
        return found

    def close(self) -> None:
        for number, worker in enumerate(self._workers):
            if worker is not None:
                worker.stop()
                self._remove(number)

    def _remove(self, number: int) -> None:
        worker = self._workers[number]
        assert worker is not None
        self._selector.unregister(worker.answers)
        worker.stop()
        self._workers[number] = None

    def _environment(self, number: int) -> dict[str, str]:
        threads = {name: str(self._threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        gpu = {"CUDA_VISIBLE_DEVICES": _visible(number, self._gpus)} if self._gpus else {}
        return {**os.environ, **threads, **gpu, "TOKENIZERS_PARALLELISM": "false"}


class _Worker:
    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.job: Job | None = None
        with log.open("ab") as errors:
            # A session of its own: Ctrl-C reaches the study, which then ends its processes.
            self.process = subprocess.Popen(
                _command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True,
                start_new_session=True,
            )  # fmt: skip
        assert self.process.stdin is not None and self.process.stdout is not None
        self.jobs: IO[str] = self.process.stdin
        self.answers: IO[str] = self.process.stdout

    def begin(self, job: Job) -> None:
        self.job = job
        with contextlib.suppress(BrokenPipeError):  # it has just died: `wait` finds that
            self.jobs.write(json.dumps(asdict(job)) + "\n")
            self.jobs.flush()

    def death(self) -> str:
        """What ended the process, in words."""
        code = self.process.wait()
        if code < 0:
            name = signal.Signals(-code).name
            hint = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
            return f"its process was ended by {name}{hint}: fewer --jobs, or a smaller batch_size, take less memory"
        return f"its process ended with code {code}: the study's logs say why"

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self.jobs.close()
        try:
            self.process.wait(LEAVING)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.answers.close()


def _command() -> list[str]:
    """Starts a worker that imports from where this process does.

    With `python -m`, a script in the current folder could take the place of a library.
    """
    code = "import sys; sys.path[:] = sys.argv.pop().split(chr(10)); from sparseq.study.worker import main; "
    return [sys.executable, "-c", code + "sys.exit(main())", "\n".join(place or os.getcwd() for place in sys.path)]


def _visible(number: int, gpus: int) -> str:
    """The device that process `number` uses, among those that this process may use."""
    allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = allowed.split(",") if allowed else [str(gpu) for gpu in range(gpus)]
    return names[number % len(names)]
