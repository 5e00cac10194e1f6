"""Saving where files cannot go, and loading from what is no file: a sentence, at once, and nothing is lost."""

import contextlib
import os
import resource
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from altered import classifier
from torch import nn

from sparseq import convert, load, pack, save
from sparseq.checkpoint import CONFIG, WEIGHTS, is_saved, layer_names, read_metadata, verify
from sparseq.errors import InputError


def tree(folder: Path) -> dict[str, Any]:
    """Every name below a folder, with a file's bytes and a link's target; links are not followed."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.is_file() and path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


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
    with pytest.raises(InputError, match="may not be written to"):
        save(nn.Linear(2, 2), tmp_path)
    tmp_path.chmod(0o700)


def test_save_asks_whether_it_may_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for root, who is told no."""
    monkeypatch.setattr("sparseq.checkpoint.write.os.access", lambda *args: False)
    with pytest.raises(InputError, match="may not be written to"):
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


@contextlib.contextmanager
def saving(folder: Path) -> Iterator[None]:
    """While another save into the folder is under way."""
    begun, end = threading.Event(), threading.Event()

    class Slow:
        def save_pretrained(self, folder: Path) -> None:
            begun.set()
            assert end.wait(60)

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(save, classifier(), folder, Slow())
        try:
            assert begun.wait(60)
            yield
        finally:
            end.set()
        other.result()


@pytest.mark.skipif(sys.platform == "win32", reason="folders have no locks there")
def test_one_save_at_a_time(tmp_path: Path) -> None:
    """Else one moves the other's half-written file into place."""
    with saving(tmp_path):
        before = tree(tmp_path)
        with pytest.raises(InputError, match="another save into it is under way"):
            save(classifier(num_labels=3), tmp_path)
        assert tree(tmp_path) == before
        save(classifier(num_labels=3), tmp_path / "another")
    assert load(tmp_path).config.num_labels == 2  # type: ignore[union-attr]
    save(classifier(num_labels=3), tmp_path)
    assert load(tmp_path).config.num_labels == 3  # type: ignore[union-attr]


def test_a_full_disk(tmp_path: Path) -> None:
    """Full in the middle of the weights: what was there stays whole, and nothing else is left."""
    size = save(classifier(), tmp_path).stat().st_size // 2
    before = tree(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))  # Python ignores the signal
    try:
        with pytest.raises(OSError, match="File too large"):
            save(classifier(num_labels=3), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert tree(tmp_path) == before


def holding(tensor: Any, name: str = "odd") -> nn.Module:
    module = nn.Module()
    module.register_buffer("good", torch.ones(2))
    module.register_buffer(name, tensor)
    return module


REFUSED = {
    "float8_e4m3fn": (lambda: torch.ones(2).to(torch.float8_e4m3fn), "of dtype float8_e4m3fn, which a file"),
    "float8_e5m2": (lambda: torch.ones(2).to(torch.float8_e5m2), "of dtype float8_e5m2, which a file"),
    "complex128": (lambda: torch.ones(2, dtype=torch.complex128), "of dtype complex128, which a file"),
    "sparse": (lambda: torch.eye(2).to_sparse(), "only dense tensors"),
    "csr": (lambda: torch.eye(2).to_sparse_csr(), "only dense tensors"),
    "quantized": (lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "only dense tensors"),
    "nested": (lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]), "only dense tensors"),
    "meta": (lambda: torch.ones(2, device="meta"), "is on the meta device"),
    "lazy": (lambda: nn.parameter.UninitializedBuffer(), "is not initialized yet"),
}


@pytest.mark.filterwarnings("ignore:.*(prototype|beta|deprecated)")
@pytest.mark.parametrize("kind", REFUSED)
def test_tensors_that_a_file_cannot_hold(kind: str, tmp_path: Path) -> None:
    make, message = REFUSED[kind]
    save(nn.Linear(2, 2), tmp_path)
    before = tree(tmp_path)
    with pytest.raises(InputError, match=rf"odd .*{message}") as caught:
        save(holding(make()), tmp_path)
    assert "\n" not in str(caught.value)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "tensor",
    [
        torch.arange(6.0).reshape(2, 3).t(),
        torch.arange(6.0)[::2],
        torch.arange(6.0).expand(3, 6),
        torch.tensor([1 + 2j, 3 - 4j]).conj(),
        torch._neg_view(torch.arange(3.0)),
        torch.tensor(3.0),
        torch.empty(0, 4),
        torch.tensor([True, False]),
        torch.tensor([0, 1, 65535], dtype=torch.uint16),
        torch.arange(3, dtype=torch.int64),
    ],
    ids=lambda tensor: f"{str(tensor.dtype)[6:]} {list(tensor.shape)}",
)
def test_tensors_of_every_other_kind(tensor: torch.Tensor, tmp_path: Path) -> None:
    save(holding(tensor), tmp_path)
    loaded = load(tmp_path, holding(torch.empty(tensor.shape, dtype=tensor.dtype))).odd
    assert loaded.dtype == tensor.dtype and loaded.tolist() == tensor.tolist()


@pytest.mark.parametrize("name", ["__metadata__", "\ud800", "x" * 2000])
def test_names_that_a_file_cannot_have(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name"):
        save(holding(torch.ones(1), name), tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["é", "a b", '"', "\\", "\n", "\x1b[31m", "\0", "x" * 1000, "__class__ "])
def test_names_with_odd_characters(name: str, tmp_path: Path) -> None:
    save(holding(torch.arange(3.0), name), tmp_path)
    assert torch.equal(load(tmp_path, holding(torch.ones(3), name)).state_dict()[name], torch.arange(3.0))


@pytest.mark.parametrize(
    "metadata", [{"sparseq": "{}"}, {"sha256": "0"}, {"format": "np"}, {"task": 3}, {3: "task"}, {"task": "\ud800"}]
)
def test_metadata_that_a_file_cannot_have(metadata: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="metadata"):
        save(nn.Linear(2, 2), tmp_path / "new", metadata=metadata)
    assert not (tmp_path / "new").exists()


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


def test_killed_between_the_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old weights still find the config that belongs to them."""
    save(classifier(), tmp_path)
    moved: list[str] = []

    def broken(source: Path, target: Path, replace: Any = os.replace) -> None:
        if moved:
            raise KeyboardInterrupt
        moved.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr("sparseq.checkpoint.write.os.replace", broken)
    monkeypatch.setattr("sparseq.checkpoint.write.shutil.rmtree", lambda *args, **kwargs: None)
    with pytest.raises(KeyboardInterrupt):
        save(classifier(hidden_size=4, num_hidden_layers=2), tmp_path)
    monkeypatch.undo()
    assert moved == [CONFIG]
    assert load(tmp_path).config.num_hidden_layers == 1  # type: ignore[union-attr]
    verify(tmp_path)
    save(classifier(num_hidden_layers=2), tmp_path)
    assert load(tmp_path).config.num_hidden_layers == 2  # type: ignore[union-attr]
    assert not (tmp_path / ".saving").exists()


@pytest.mark.parametrize(
    "model", ["bert", nn.Linear, {"weight": torch.ones(2)}, 3], ids=lambda value: type(value).__name__
)
def test_what_is_no_model(model: Any, tmp_path: Path) -> None:
    save(nn.Linear(2, 2), tmp_path)
    before = tree(tmp_path)
    for call in (lambda: save(model, tmp_path), lambda: load(tmp_path, model)):
        with pytest.raises(TypeError, match=r"an nn\.Module, not") as caught:
            call()
        assert isinstance(caught.value, InputError) and "\n" not in str(caught.value)
    assert tree(tmp_path) == before
