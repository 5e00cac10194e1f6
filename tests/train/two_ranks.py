"""Two processes that train one model, started with the variables that torchrun sets, without the imports of each."""

import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fresh import TRAINING, FreshProcesses


class TwoRanks:
    """Runs a piece of code in two processes at once, as often as it is asked to."""

    def __init__(self, folder: Path) -> None:
        folders = [folder / str(rank) for rank in range(2)]
        for one in folders:
            one.mkdir()
        self._ranks = [FreshProcesses(one, TRAINING) for one in folders]

    def run(self, code: str) -> list[subprocess.CompletedProcess[str]]:
        """What became of the two, in the order of their ranks."""
        shared = {
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
        }
        with ThreadPoolExecutor(2) as pool:
            asked = [
                pool.submit(process.run, code, RANK=str(rank), LOCAL_RANK=str(rank), **shared)
                for rank, process in enumerate(self._ranks)
            ]
            return [one.result() for one in asked]

    def close(self) -> None:
        for process in self._ranks:
            process.close()


def by_torchrun(*arguments: str | os.PathLike[str], cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The same by torchrun itself. arguments: the program's, with those that say what it is."""
    return subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *arguments],
        check=False, timeout=300, cwd=cwd, capture_output=True, text=True,
    )  # fmt: skip


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
