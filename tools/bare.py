"""Installs a wheel into an environment with nothing but what it requires, and uses it there.

    python -m tools.bare dist/sparseq-0.1.0-py3-none-manylinux_2_27_x86_64.whl

What it requires is lent by the environment that this runs in, so that nothing is downloaded. There is no compiler, no
home and no optional library there: `tools/bare_use.py` says what must work all the same.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from email import message_from_bytes
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from bench.program import run_program
from sparseq.errors import InputError, MachineError

USE = Path(__file__).with_name("bare_use.py")


def required(lines: Sequence[str]) -> dict[str, metadata.Distribution]:
    """The installed distributions that these requirements name, and all that they require, by name.

    Raises InputError for one that is not installed.
    """
    found: dict[str, metadata.Distribution] = {}
    asked = [Requirement(line) for line in lines]
    while asked:
        one = asked.pop()
        if one.name in found or (one.marker is not None and not one.marker.evaluate({"extra": ""})):
            continue
        try:
            found[one.name] = metadata.distribution(one.name)
        except metadata.PackageNotFoundError:
            raise InputError(f"{one.name} is not installed here, and cannot be lent") from None
        asked += map(Requirement, found[one.name].requires or ())
    return found


def lend(distributions: Sequence[metadata.Distribution], packages: Path) -> None:
    """Links what these distributions have installed into another environment's folder of packages."""
    for one in distributions:
        for top in {path.parts[0] for path in one.files or () if path.parts[0] not in ("..", "__pycache__")}:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(str(one.locate_file(top))).resolve())


def install(wheel: Path, folder: Path) -> Path:
    """The Python of an environment in `folder` with the wheel, what it requires, and nothing else.

    pip checks that nothing is missing. Raises MachineError if it cannot install it.
    """
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        lines = message_from_bytes(archive.read(name)).get_all("Requires-Dist", [])
    _run([sys.executable, "-m", "venv", "--without-pip", folder], f"cannot make an environment in {folder}")
    (packages,) = folder.glob("lib/python*/site-packages")
    lend(list(required(lines).values()), packages)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--isolated", "--python", python, "install", "--quiet", "--no-index", wheel]
    # A path to this checkout would pass for the package.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    _run([*command, "--disable-pip-version-check"], f"pip cannot install {wheel}", environment)
    return python


def use(python: Path, place: Path) -> str:
    """What `tools/bare_use.py` prints there. Raises MachineError, with what it said, if anything does not work."""
    nowhere = str(place / "nowhere")
    environment = {"PATH": "", "HOME": nowhere, "SPARSEQ_CACHE": nowhere, "OMP_NUM_THREADS": "2"}
    said = _run([python, "-I", "-W", "error", USE], "the installed wheel does not work", environment, place)
    if os.path.exists(nowhere):
        raise MachineError(f"the installed wheel has written into {nowhere}, where nothing was to build")
    return said


def _run(
    command: Sequence[object], failure: str, environment: dict[str, str] | None = None, folder: Path | None = None
) -> str:
    done = subprocess.run(
        list(map(str, command)), env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise MachineError(f"{failure}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.bare", description="Use a wheel where there is little else.")
    parser.add_argument("wheel", type=Path, help="the wheel")
    wheel: Path = parser.parse_args(argv).wheel
    if not wheel.is_file():
        raise InputError(f"there is no wheel {wheel}")
    with tempfile.TemporaryDirectory() as name:
        print(use(install(wheel.resolve(), Path(name) / "bare"), Path(name)), end="")
    return 0


if __name__ == "__main__":
    run_program(main)
