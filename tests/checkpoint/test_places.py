"""Saving where files cannot go, and loading from what is no file: one sentence, at once, and nothing is lost."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from altered import classifier
from file_tree import tree
from torch import nn

from sparseq import convert, load, pack, save
from sparseq.checkpoint import CONFIG, WEIGHTS, is_saved, layer_names, read_metadata, verify
from sparseq.errors import InputError


def staging_is_a_file(folder: Path, elsewhere: Path) -> None:
    (folder / ".saving").write_text("mine")


def staging_is_a_link(folder: Path, elsewhere: Path) -> None:
    (folder / ".saving").symlink_to(elsewhere)


def staging_is_a_link_to_none(folder: Path, elsewhere: Path) -> None:
    (folder / ".saving").symlink_to(elsewhere / "none")


def staging_is_a_fifo(folder: Path, elsewhere: Path) -> None:
    os.mkfifo(folder / ".saving")


def weights_are_a_folder(folder: Path, elsewhere: Path) -> None:
    (folder / WEIGHTS).unlink(missing_ok=True)
    (folder / WEIGHTS).mkdir()


def config_is_a_folder(folder: Path, elsewhere: Path) -> None:
    (folder / CONFIG).unlink(missing_ok=True)
    (folder / CONFIG).mkdir()


def config_is_a_link_to_a_folder(folder: Path, elsewhere: Path) -> None:
    (folder / CONFIG).unlink(missing_ok=True)
    (folder / CONFIG).symlink_to(elsewhere)


ODD = [
    staging_is_a_file, staging_is_a_link, staging_is_a_link_to_none, staging_is_a_fifo, weights_are_a_folder,
    config_is_a_folder, config_is_a_link_to_a_folder,
]  # fmt: skip


@pytest.mark.parametrize("there", [False, True], ids=["empty", "with a model"])
@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.__name__)
def test_save_refuses_and_changes_nothing(odd: Callable[[Path, Path], None], there: bool, tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "folder", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    (elsewhere / "precious").write_text("not ours")
    if there:
        save(pack(convert(classifier())), folder)
    odd(folder, elsewhere)
    before = tree(tmp_path)
    with pytest.raises(InputError, match="cannot save into") as caught:
        save(classifier(num_labels=3), folder)
    assert "\n" not in str(caught.value)
    assert tree(tmp_path) == before


def test_save_replaces_links_and_not_what_they_lead_to(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("not ours")
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in (WEIGHTS, CONFIG):
        (folder / name).symlink_to(tmp_path / "elsewhere")
    save(classifier(), folder)
    load(folder)
    assert (tmp_path / "elsewhere").read_text() == "not ours"


@pytest.mark.parametrize(
    "place",
    [
        lambda path: path / "file" / "folder",
        lambda path: path / "loop" / "folder",
        lambda path: path / "loop",
        lambda path: path / "link to none",
        lambda path: path / ("long" * 100),
        lambda path: path / "zero\0byte",
        lambda path: path / "fifo",
        lambda path: Path("/dev/null"),
        lambda path: Path("/proc/folder"),
    ],
)
def test_save_into_no_folder(place: Callable[[Path], Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "link to none").symlink_to(tmp_path / "none")
    os.mkfifo(tmp_path / "fifo")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(InputError, match="cannot save into"):
        save(nn.Linear(2, 2), place(tmp_path))
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_save_where_one_may_not_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="is not writable"):
        save(nn.Linear(2, 2), tmp_path)
    tmp_path.chmod(0o700)


def test_save_asks_whether_it_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for root, who is told no."""
    monkeypatch.setattr("sparseq.checkpoint.write.os.access", lambda *args: False)
    with pytest.raises(InputError, match="is not writable"):
        save(nn.Linear(2, 2), tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_tokenizer_whose_file_is_a_folder(tmp_path: Path) -> None:
    class Tokenizer:
        def save_pretrained(self, folder: Path) -> None:
            (Path(folder) / "vocab.txt").write_text("a")

    save(classifier(), tmp_path)
    (tmp_path / "vocab.txt").mkdir()
    before = tree(tmp_path)
    with pytest.raises(InputError, match=r"vocab\.txt is a folder there"):
        save(classifier(num_labels=3), tmp_path, Tokenizer())
    assert tree(tmp_path) == before


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
@pytest.mark.parametrize("kind", ["fifo", "folder", "device", "socket", "loop", "endless", "huge"])
def test_loading_what_is_no_file(name: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once: a FIFO waits for a writer, and a device may have no end."""
    save(pack(convert(classifier())), tmp_path)
    (tmp_path / name).unlink()
    if kind == "fifo":
        os.mkfifo(tmp_path / name)
    elif kind == "folder":
        (tmp_path / name).mkdir()
    elif kind == "device":
        (tmp_path / name).symlink_to("/dev/zero")
    elif kind == "socket":
        monkeypatch.chdir(tmp_path)  # its path may have about a hundred characters
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(name)
    elif kind == "loop":
        (tmp_path / name).symlink_to(tmp_path / name)
    elif kind == "endless":
        (tmp_path / name).symlink_to("/proc/self/fd/0" if Path("/proc/self/fd/0").exists() else "/dev/zero")
    else:
        with (tmp_path / name).open("wb") as file:
            file.truncate(2**40)
    for read in (load, verify) + ((layer_names, read_metadata) if name == WEIGHTS else ()):
        with pytest.raises(InputError) as caught:
            read(tmp_path)
        assert name in str(caught.value) and "\n" not in str(caught.value)
    assert is_saved(tmp_path) == (name == CONFIG)
