"""Tests a part of everything at the lowest versions that pyproject.toml allows, and at the newest on the package index.

    python -m tools.versions lowest
    python -m tools.versions newest --python 3.13 --out FOLDER

uv, of the extra `dev`, chooses the versions, and makes an environment of them, which is removed afterwards. FOLDER
(default: runs/versions) gets `versions-lowest.txt`, with every package, and `versions-lowest.md`: the versions and what
came out. Triton's kernels are left out: the lowest torch has a Triton that they do not run on.
"""

import argparse
import importlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bench.common import ROOT
from bench.program import run_program
from sparseq.errors import InputError, MachineError

RESOLUTIONS = {"lowest": "lowest-direct", "newest": "highest"}
"""Which versions -> uv's name for how it chooses them."""

EXTRAS = ("train", "study", "completion")
TEST_TOOLS = ("pytest", "pytest-xdist", "hypothesis", "expecttest", "setuptools")
"""Of the extra `test`: what the tests below need, at its newest version always."""

PARTS = {
    "importing": ("tests/test_importing.py",),
    "ops": ("tests/kernels/test_int8_linear.py", "tests/kernels/test_qat_linear.py", "tests/kernels/test_gradients.py"),
    "formats": ("tests/kernels/test_formats.py", "tests/checkpoint/test_round_trips.py"),
    "layers": ("tests/nn/test_convert.py", "tests/nn/test_packed.py", "tests/nn/test_quant_sparse_linear.py"),
    "fused encoders": ("tests/nn/fused/test_model.py", "tests/nn/fused/test_families.py"),
    "transformers": ("tests/pretrained",),
    "pruning and distillation": ("tests/test_prune.py", "tests/distill"),
    "data and metrics": (
        "tests/tasks/test_task_own_files.py",
        "tests/tasks/test_task_dataset.py",
        "tests/tasks/test_task_metrics.py",
    ),
    "runs": ("tests/train/test_run.py",),
    "commands": ("tests/cli/test_cli.py", "tests/cli/test_extras.py", "tests/cli/test_completion.py"),
    "studies": ("tests/study/test_study_run.py", "tests/study/test_report_page.py"),
}
"""What of the suite is run: a part -> its files and folders."""


@dataclass
class Outcome:
    """Of a part: how many tests passed and were skipped, the names of those that failed, and their time in seconds."""

    passed: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)
    seconds: float = 0.0


def project() -> dict[str, Any]:
    """The table `project` of pyproject.toml."""
    name = "tomllib" if sys.version_info >= (3, 11) else "tomli"
    content = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    table: dict[str, Any] = importlib.import_module(name).loads(content)["project"]
    return table


def python_for(which: str) -> str:
    """The oldest Python that the project allows, or the newest of its classifiers."""
    if which == "lowest":
        return str(project()["requires-python"]).removeprefix(">=")
    listed = [line.rpartition(" ")[2] for line in project()["classifiers"] if " :: Python :: 3." in line]
    return max(listed, key=lambda version: int(version.partition(".")[2]))


def tools_of_tests() -> list[str]:
    """The requirements of the `TEST_TOOLS`, as the extra `test` has them."""
    lines = project()["optional-dependencies"]["test"]
    return [line for line in lines if Requirement(line).name in TEST_TOOLS]


def direct() -> list[str]:
    """The names of what sparseq itself requires, with the `EXTRAS` and what they build on."""
    lines = list(project()["dependencies"])
    extras = list(EXTRAS)
    while extras:
        for line in project()["optional-dependencies"][extras.pop()]:
            one = Requirement(line)
            extras += one.extras if one.name == "sparseq" else ()
            lines += [] if one.name == "sparseq" else [line]
    return sorted({canonicalize_name(Requirement(line).name) for line in lines})


def make(which: str, python: str, folder: Path, versions: Path) -> Path:
    """Writes the chosen versions into the file `versions`, and installs them. The Python of the environment.

    Raises InputError without uv, and MachineError if uv finds no versions that go together, or cannot get them.
    """
    if importlib.util.find_spec("uv") is None:
        raise InputError("this needs uv, which is not installed: pip install -e '.[dev]'")
    environment = folder / "environment"
    _uv("venv", "--quiet", "--clear", "--python", python, environment)
    found = environment / "bin" / "python"
    extras = [part for extra in EXTRAS for part in ("--extra", extra)]
    chosen = ("--quiet", "--python", found, "--resolution", RESOLUTIONS[which], "--no-annotate", "--no-header")
    _uv("pip", "compile", *chosen, *extras, "--output-file", versions, ROOT / "pyproject.toml")
    _uv("pip", "install", "--quiet", "--python", found, "--requirement", versions, *tools_of_tests())
    return found


def _uv(*arguments: object) -> None:
    command = [sys.executable, "-m", "uv", *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise MachineError(f"uv {' '.join(map(str, arguments[:2]))} failed: {done.stderr.strip()}")


def run_tests(python: Path, report: Path) -> dict[str, Outcome]:
    """What came out of each part. Raises MachineError if pytest could not run."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    environment.pop("VIRTUAL_ENV", None)
    paths = [path for part in PARTS.values() for path in part]
    options = ["-q", "-n", "2", "--dist", "worksteal", "-p", "no:cacheprovider", "-o", "junit_family=xunit1"]
    report.unlink(missing_ok=True)
    subprocess.run([python, "-m", "pytest", *options, f"--junitxml={report}", *paths], cwd=ROOT, env=environment)
    if not report.exists():
        raise MachineError("pytest has not run at these versions; it says why above")
    return outcomes(report.read_text(encoding="utf-8"))


def outcomes(junit: str) -> dict[str, Outcome]:
    """The outcome of each part in pytest's report, an XML text. What belongs to none, such as a file that cannot be
    imported by another name, is under "other"."""
    found = {part: Outcome() for part in PARTS}
    for case in ElementTree.fromstring(junit).iter("testcase"):
        place = case.get("file") or f"{case.get('classname') or case.get('name', '')}".replace(".", "/")
        part = next((part for part, paths in PARTS.items() if any(_within(place, path) for path in paths)), "other")
        outcome = found.setdefault(part, Outcome())
        outcome.seconds += float(case.get("time", 0))
        if case.find("failure") is not None or case.find("error") is not None:
            outcome.failed.append(f"{place}::{case.get('name')}")
        elif case.find("skipped") is not None:
            outcome.skipped += 1
        else:
            outcome.passed += 1
    return found


def _within(place: str, path: str) -> bool:
    return place == path or f"{place}.py" == path or place.startswith(path + "/")


def page(which: str, python: str, versions: str, found: dict[str, Outcome]) -> str:
    """The versions and the outcomes as Markdown. versions: lines of name==version."""
    listed = dict(re.findall(r"^([\w.-]+)==(\S+)", versions, re.MULTILINE))
    shown = [f"{name} {listed[name]}" for name in direct() if name in listed]
    lines = [
        f"# The {which} versions",
        "",
        f"Python {python}, {platform.system()} on {platform.machine()}: {', '.join(shown)}.",
        "",
        "| part | passed | failed | skipped | seconds |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for part, one in found.items():
        lines.append(f"| {part} | {one.passed} | {len(one.failed)} | {one.skipped} | {one.seconds:.0f} |")
    failed = [name for one in found.values() for name in one.failed]
    if failed:
        lines += ["", "Failed:", "", *(f"- `{name}`" for name in failed)]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tools.versions", description="Test at the lowest or the newest versions of what is required."
    )
    parser.add_argument("which", choices=RESOLUTIONS)
    parser.add_argument("--python", help="its version (default: the oldest allowed, or the newest listed)")
    parser.add_argument("--out", type=Path, default=Path("runs/versions"), help="where to write (default: %(default)s)")
    parser.add_argument("--keep", action="store_true", help="keep the environment, which is large")
    arguments = parser.parse_args(argv)
    which, out = arguments.which, arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    versions = out / f"versions-{which}.txt"
    try:
        python = make(which, arguments.python or python_for(which), out, versions)
        found = run_tests(python, out / f"versions-{which}.xml")
        name = subprocess.run([python, "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    finally:
        if not arguments.keep:
            shutil.rmtree(out / "environment", ignore_errors=True)
    text = page(which, name, versions.read_text(encoding="utf-8"), found)
    (out / f"versions-{which}.md").write_text(text, encoding="utf-8")
    print(text, end="")
    return int(any(one.failed for one in found.values()))


if __name__ == "__main__":
    run_program(main)
