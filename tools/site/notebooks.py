"""Runs the notebooks of the docs, and stores what they print in them.

python -m tools.site.notebooks          runs all, and rewrites them with their outputs
python -m tools.site.notebooks --check  runs all, and changes nothing; exits with 1 if a cell fails
"""

import argparse
import copy
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbconvert.filters import strip_ansi

from bench.common import ROOT
from bench.program import run_program
from sparseq.terminal import say
from sparseq.train.durable import write_whole

NOTEBOOKS = ROOT / "docs" / "notebooks"
SECONDS = 900
"""A cell that takes longer fails."""

# Of tqdm, where no widgets are installed; with the path of the installation.
_IGNORED = "ignore:IProgress not found"


def executed(path: Path) -> Any:
    """The notebook with its cells run in order, in a new process. Raises CellExecutionError for one that fails."""
    notebook = nbformat.read(path, as_version=4)
    metadata = copy.deepcopy(notebook.metadata)
    # What differs at every run or with every Python is left out: cells' times, and what the kernel says of itself.
    client = NotebookClient(
        notebook,
        kernel_name="python3",
        # It warns that its messages are not encrypted, which stay on this machine.
        extra_arguments=["--log-level=ERROR"],
        timeout=SECONDS,
        record_timing=False,
        coalesce_streams=True,
    )
    client.execute(cwd=str(path.parent), env={**os.environ, "PYTHONWARNINGS": _IGNORED})
    notebook.metadata = metadata
    return notebook


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Runs the notebooks of the docs, and stores their outputs.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a cell fails")
    given = parser.parse_args(argv)
    failed = 0
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        try:
            notebook = executed(path)
        except CellExecutionError as error:
            print(f"{path}:\n{strip_ansi(str(error))}", file=sys.stderr)
            failed = 1
            continue
        if not given.check:
            write_whole(path, nbformat.writes(notebook) + "\n")
        say(f"{path}: {len(notebook.cells)} cells")
    return failed


if __name__ == "__main__":
    run_program(main)
