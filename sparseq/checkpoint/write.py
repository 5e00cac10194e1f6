"""Writing a model folder: invalid input is refused first, and old files stay until the new ones are complete."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from sparseq.errors import InputError
from sparseq.failures import is_full
from sparseq.nn.unwrap import unwrapped
from sparseq.reading import brief
from sparseq_kernels.errors import InputTypeError
from sparseq_kernels.locks import lock
from sparseq_kernels.untrusted import quoted

from .config import config_text
from .header import check_name
from .names import CHECKSUM, CONFIG, KEY, PREVIOUS, STAGING, WEIGHTS
from .serialize import serialized
from .state import contents, has_config

__all__ = ["save"]


def save(
    model: nn.Module, folder: str | Path, tokenizer: Any = None, *, metadata: Mapping[str, str] | None = None
) -> Path:
    """Writes `model.safetensors`, `config.json` for a transformers model, and the tokenizer; returns the weights' path.

    All files are first written to a subfolder and then moved into place, the weights last. If the process is killed at
    any time, a new folder has a complete model or none, and an existing folder has a complete model, the old or the new
    one. Wrappers of torch.compile, data parallelism and averages of weights around the model are left out.

    metadata: additional text entries for the file's header.

    Raises InputError before anything is written: if `folder` is a file or is not writable, if something else is in the
    place of a file, if another `save` is writing there, for NaN or infinity in a parameter or a sparseq layer, and for
    state that a file cannot hold (see `contents`). Raises OSError if the disk is full or fails.
    """
    if not isinstance(model, nn.Module):
        raise InputTypeError(f"save() writes a model, an nn.Module, not {quoted(model)}")
    folder = Path(folder)
    model = unwrapped(model)
    held = contents(model)
    extra = _checked(metadata or {})
    config = None if not has_config(model) else config_text(model, held).encode()
    tensors, header = serialized(model, held, config, extra)
    with _staging(folder) as staging:
        try:
            save_file(tensors, staging / WEIGHTS, header)
        except SafetensorError as error:
            raise OSError(f"{staging / WEIGHTS} cannot be written ({brief(error)})") from error
        if config is not None:
            (staging / CONFIG).write_bytes(config)
        if tokenizer is not None:
            tokenizer.save_pretrained(staging)
        _move(staging, folder)
    return folder / WEIGHTS


def _checked(metadata: Mapping[str, str]) -> dict[str, str]:
    for name, text in metadata.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise InputError(f"metadata must have texts for texts, not {text!r} for {name!r}")
        if name in (KEY, CHECKSUM, "format"):
            raise InputError(f"metadata has an entry {name!r}, which is the file's own")
        check_name(name, "an entry of metadata")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"the entry {name!r} of metadata is no Unicode text") from error
    return dict(metadata)


@contextlib.contextmanager
def _staging(folder: Path) -> Iterator[Path]:
    """A new, empty subfolder of `folder` for this call alone, removed at the end.

    Both are created if necessary. Raises InputError if files cannot be written there, or if another save is writing.
    The lock belongs to the operating system and ends with the process. On systems without locks for folders (Windows,
    some network drives) two writers are not kept apart.
    """
    with contextlib.ExitStack() as held:
        try:
            _check_place(folder)
            folder.mkdir(parents=True, exist_ok=True)
            if os.name == "posix":  # on other systems a folder cannot be opened
                descriptor = os.open(folder, os.O_RDONLY)
                held.callback(os.close, descriptor)
                _lock(descriptor, folder)
            staging = folder / STAGING
            if staging.exists():
                shutil.rmtree(staging)
            staging.mkdir()
        except (OSError, ValueError) as error:
            if isinstance(error, InputError) or (isinstance(error, OSError) and is_full(error)):
                raise  # the input is not the cause
            raise InputError(f"cannot save into {folder} ({brief(error)})") from error
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        lock(descriptor)
    except BlockingIOError as error:
        raise InputError(
            f"cannot save into {folder}: another save into it is under way; save from one process at a time"
        ) from error
    except OSError:  # a file system without locks
        pass


def _check_place(folder: Path) -> None:
    """Raises InputError if files cannot be written to the folder."""
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"cannot save into {folder}: it is a file or a link to none, and a folder is needed")
    for name in (WEIGHTS, CONFIG):
        if (folder / name).is_dir():
            raise InputError(f"cannot save into {folder}: {name} is a folder there; remove it")
    staging = folder / STAGING
    if staging.is_symlink() or (staging.exists() and not staging.is_dir()):
        raise InputError(f"cannot save into {folder}: {STAGING} is in the way, which is no folder; remove it")
    if folder.is_dir() and not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"cannot save into {folder}: the folder is not writable")


def _move(staging: Path, folder: Path) -> None:
    """Moves the files into place, the weights last. Raises InputError before that if a folder has a name of a file."""
    files = sorted((file for file in staging.iterdir() if file.is_file()), key=lambda file: file.name == WEIGHTS)
    for file in files:
        if (folder / file.name).is_dir():
            raise InputError(f"cannot save into {folder}: {file.name} is a folder there; remove it")
        _flush(file)
    # If the process is killed before the weights are moved, the old weights still have their config: see `config`.
    with contextlib.suppress(OSError):
        if any(file.name == CONFIG for file in files):
            shutil.copyfile(folder / CONFIG, staging / PREVIOUS)
            _flush(staging / PREVIOUS)
    for file in files:
        os.replace(file, folder / file.name)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
