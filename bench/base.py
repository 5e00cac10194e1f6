"""Another commit of this repository, imported beside this tree under other names: two versions timed in one process.

The commit's packages are written to a temporary folder, where their names in the text of the .py files get a suffix:
`sparseq_base`, `sparseq_kernels_base`, and `torch.ops.sparseq_base` for the ops.
"""

import atexit
import importlib
import io
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from bench.common import ROOT
from bench.packages import Packages
from sparseq import InputError

SUFFIX = "_base"
FOLDERS = ("sparseq", "kernels/sparseq_kernels")
_PACKAGE = re.compile(r"\bsparseq_kernels\b")
# As a package, as a namespace of ops, or as the whole of a string; but not as the name of a folder below another.
_NAMES = (
    re.compile(r"\b(?:(?<=import )|(?<=from ))sparseq\b"),
    re.compile(r"\bsparseq(?=\.[A-Za-z_{])"),
    re.compile(r"\bsparseq(?=::)"),
    re.compile(r"(?<!/ [\"'])(?<=[\"'])sparseq(?=[\"'])"),
)


def renamed(source: str) -> str:
    """The text of a module with the packages' and the ops' names changed."""
    source = _PACKAGE.sub(f"sparseq_kernels{SUFFIX}", source)
    for pattern in _NAMES:
        source = pattern.sub(f"sparseq{SUFFIX}", source)
    return source


def load(revision: str) -> Packages:
    """The packages of that commit; once a process. InputError where git has no such commit, or it cannot be read."""
    commit = _git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}").decode().strip()
    if not commit:
        raise InputError(f"git knows no commit {revision!r} in {ROOT}")
    if f"sparseq{SUFFIX}" in sys.modules:
        raise InputError("one other commit can be loaded in a process, and one is loaded already")
    folder = tempfile.TemporaryDirectory(prefix="sparseq-base-")
    # Triton reads the source of its kernels when they are first called.
    atexit.register(folder.cleanup)
    _export(commit, Path(folder.name))
    sys.path.insert(0, folder.name)
    try:
        kernels, layers = (importlib.import_module(f"{name}{SUFFIX}") for name in ("sparseq_kernels", "sparseq"))
    except ImportError as error:
        raise InputError(f"the packages of commit {revision} cannot be imported here: {error}") from error
    return Packages(kernels, layers, commit)


def _export(commit: str, folder: Path) -> None:
    archive = _git("archive", "--format=tar", commit, "--", *FOLDERS)
    if not archive:
        raise InputError(f"commit {commit} has no folders {' and '.join(FOLDERS)}")
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar.getmembers():
            if not member.isfile():
                continue
            parts = Path(member.name.removeprefix("kernels/")).parts
            path = folder.joinpath(f"{parts[0]}{SUFFIX}", *parts[1:])
            path.parent.mkdir(parents=True, exist_ok=True)
            file = tar.extractfile(member)
            assert file is not None
            content = file.read()
            path.write_bytes(renamed(content.decode()).encode() if path.suffix == ".py" else content)


def _git(*words: str) -> bytes:
    """What git prints; nothing where it fails."""
    try:
        return subprocess.run(["git", "-C", str(ROOT), *words], check=True, capture_output=True).stdout
    except OSError as error:
        raise InputError(f"git, which reads other commits, cannot be run: {error}") from error
    except subprocess.CalledProcessError:
        return b""
