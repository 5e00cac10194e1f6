"""The cache's folder for code: nobody else's code is loaded from it."""

import os
import stat
import tempfile
from pathlib import Path

import pytest
from code_folders import OTHER, forget, quietly, root

from sparseq_kernels import cache

pytestmark = pytest.mark.usefixtures("folder")


def refused(match):
    """What `code_dir` gives instead, having warned."""
    with pytest.warns(UserWarning, match=match):
        found = cache.code_dir("native")
    assert stat.S_IMODE(found.stat().st_mode) == 0o700 and found.stat().st_uid == os.geteuid()
    assert not found.is_relative_to(cache.cache_dir())
    return found


def test_every_folder_that_is_made_is_ours_alone(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSEQ_CACHE", str(tmp_path / "a" / "b"))
    before = os.umask(0)
    try:
        found = quietly(lambda: cache.code_dir("native"))
    finally:
        os.umask(before)
    assert found == tmp_path / "a" / "b" / "native"
    for made in (found, found.parent, found.parent.parent):
        assert stat.S_IMODE(made.stat().st_mode) == 0o700


def test_a_folder_of_ours_that_others_can_read_is_closed(folder):
    (folder / "native").mkdir(parents=True)
    (folder / "native").chmod(0o755)
    assert quietly(lambda: cache.code_dir("native")) == folder / "native"
    assert stat.S_IMODE((folder / "native").stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o1777])
def test_a_folder_that_others_can_write_to_is_refused(folder, mode):
    (folder / "native").mkdir(parents=True)
    (folder / "native").chmod(mode)
    refused("other users can write to")


def test_so_is_one_below_a_folder_that_others_can_write_to(folder):
    folder.mkdir()
    folder.chmod(0o777)
    refused(rf"other users can write to {folder}\. Point SPARSEQ_CACHE")
    folder.chmod(0o1777)  # There nobody can rename what is another's.
    forget()
    assert quietly(lambda: cache.code_dir("native")) == folder / "native"


def test_a_folder_may_be_writable_for_the_users_own_group(folder):
    folder.mkdir()
    folder.chmod(0o775)
    assert quietly(lambda: cache.code_dir("native")) == folder / "native"


@root
@pytest.mark.parametrize("which", [".", "native"])
def test_another_users_folder_is_refused(folder, which):
    (folder / "native").mkdir(parents=True, mode=0o700)
    os.chown(folder / which, OTHER, OTHER)
    refused("belongs to another user")


@root
def test_a_group_of_others_may_not_write(folder):
    folder.mkdir()
    os.chown(folder, -1, OTHER)
    folder.chmod(0o775)
    refused("other users can write to")


def test_a_link_is_no_folder(folder, tmp_path):
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (folder / "native").symlink_to(tmp_path / "elsewhere")
    refused("is not a folder")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_file_in_its_place(folder):
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("")
    refused("Not a directory|File exists|not a folder")


def test_a_cache_that_cannot_be_made(monkeypatch):
    monkeypatch.setenv("SPARSEQ_CACHE", "/proc/sparseq")
    refused("/proc/sparseq|No such file|Not a directory")


def test_without_a_home_the_name_is_the_users_own(monkeypatch, tmp_path):
    monkeypatch.delenv("SPARSEQ_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "nonexistent"))
    assert cache.cache_dir() == Path(tempfile.gettempdir()) / f"sparseq-{os.geteuid()}"
    assert not (tmp_path / "nonexistent").exists()


@root
def test_without_a_home_a_folder_that_another_made_first_is_refused(monkeypatch, tmp_path):
    monkeypatch.delenv("SPARSEQ_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "nonexistent"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    planted = tmp_path / f"sparseq-{os.geteuid()}"
    (planted / "native").mkdir(parents=True)
    os.chown(planted, OTHER, OTHER)
    refused("belongs to another user")
