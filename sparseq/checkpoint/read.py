"""Reading a model folder: the header is checked, then the config; then the model is built, and then filled."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from sparseq.errors import InputError
from sparseq.nn import check_finite
from sparseq.nn.inference_mode import outside_inference_mode
from sparseq.reading import brief
from sparseq_kernels.errors import InputTypeError
from sparseq_kernels.untrusted import quoted

from .build import build
from .checksum import checksum, raw
from .config import read_config, verify_config
from .files import Files, open_files
from .header import Entry, Header
from .layout import Layout, read_layout
from .names import CHECKSUM, CONFIG, KEY
from .sentinels import unguarded
from .skeleton import check_state, fill, place_layers

__all__ = ["Source", "is_saved", "layer_names", "load", "open_source", "read_metadata", "verify"]


@outside_inference_mode
def load(folder: str | Path, model: nn.Module | None = None) -> nn.Module:
    """Loads the model that `save` wrote into `folder`, exact to the bit, on the CPU, in eval mode.

    model: a model with the same module names. Its plain layers are replaced by the saved ones and its tensors by the
    file's; it is changed in place and returned, and unusable after an error. Without it, the model is rebuilt from
    `config.json` by transformers, using only classes of transformers and never code or data from a hub.

    Raises InputError if the folder or a file is missing, truncated, changed or not written by `save`; if the given
    model does not match; and for NaN or infinity in a parameter or a sparseq layer (naming it). Everything that the
    header and `config.json` say is checked before memory is allocated for it.
    """
    if model is not None and not isinstance(model, nn.Module):
        raise InputTypeError(f"load() fills a model, an nn.Module, not {quoted(model)}")
    folder = Path(folder)
    with open_source(folder) as source:
        layout, path = source.layout, source.path
        if model is None:
            model = _build(folder, source)
        model = place_layers(model, layout, path)
        check_state(model, layout, source.header, path)
        tensors = source.tensors()
    try:
        fill(model, layout, tensors)
        check_finite(model)
    except InputError as error:
        raise InputError(f"{path} cannot be used: {error}; save the model again") from error
    return model.eval()


def verify(folder: str | Path) -> None:
    """Checks that the folder's `model.safetensors` and `config.json` are complete and as `save` wrote them.

    Raises InputError if they are not. In format 1 `config.json` has no checksum.
    """
    with open_source(Path(folder)) as source:
        verify_config(Path(folder), source.layout)
        source.verify()


def is_saved(folder: str | Path) -> bool:
    """Whether the folder's weights were written by `save`, judging by the header alone."""
    with contextlib.suppress(InputError):
        return KEY in read_metadata(folder)
    return False


def layer_names(folder: str | Path) -> tuple[str, ...]:
    """Names of the sparseq layers in a saved folder; empty for a plain model.

    Raises InputError if the header was not written by `save` or is damaged.
    """
    with open_source(Path(folder)) as source:
        return tuple(source.layout.layers)


def read_metadata(folder: str | Path) -> dict[str, str]:
    """The text entries of the header, unchecked. Raises InputError if the folder or file is missing or damaged."""
    with open_files(Path(folder)) as files:
        return files.header.metadata


@dataclass(frozen=True)
class Source:
    """Open weights whose header was checked."""

    files: Files
    layout: Layout

    @property
    def path(self) -> Path:
        """Of the weights, for messages."""
        return self.files.path

    @property
    def header(self) -> Header:
        return self.files.header

    def tensors(self) -> dict[str, Tensor]:
        """All tensors except the sentinels, by their names in the file, in the shapes that they have in the model.

        Raises InputError if the checksum is wrong.
        """
        tensors: dict[str, Tensor] = {}

        def reading() -> Iterator[tuple[str, Tensor]]:
            for name, entry in sorted(self.header.entries.items()):
                tensors[name] = self._read(name, entry)
                yield name, tensors[name]

        self._check(reading())
        return {
            name: unguarded(tensor) if name in self.layout.guarded else tensor
            for name, tensor in tensors.items()
            if name not in self.layout.sentinels
        }

    def verify(self) -> None:
        """Raises InputError if the checksum is wrong. Only one tensor at a time is in memory."""
        self._check((name, self._read(name, entry)) for name, entry in sorted(self.header.entries.items()))

    def _check(self, tensors: Iterator[tuple[str, Tensor]]) -> None:
        largest = _memory()
        if largest is not None and self.header.size > largest:
            raise InputError(f"{self.path} has {self.header.size:,} bytes, more than this machine's memory")
        metadata = dict(self.header.metadata)
        stated = metadata.pop(CHECKSUM, None)
        if checksum(metadata, tensors) != stated:
            raise InputError(f"{self.path} was altered after it was saved (sha256 mismatch); save or copy it again")

    def _read(self, name: str, entry: Entry) -> Tensor:
        file = self.files.places[name]
        try:
            tensor = torch.empty(entry.shape, dtype=entry.dtype, device="cpu")
            if tensor.numel():
                file.seek(entry.start)
                left = raw(tensor)
                while left:
                    count = file.readinto(left)  # type: ignore[attr-defined]
                    if not count:
                        raise InputError(f"{self.path} was cut short while it was read")
                    left = left[count:]
        except (OSError, RuntimeError, MemoryError) as error:
            raise InputError(f"{self.path} cannot be read ({brief(error)})") from error
        if entry.dtype == torch.bool and tensor.numel() and int(tensor.view(torch.uint8).max()) > 1:
            raise InputError(f"{self.path} is damaged: it has bytes other than 0 and 1 as truth values; save it again")
        return tensor


@contextlib.contextmanager
def open_source(folder: Path) -> Iterator[Source]:
    """Opens the folder's weights. Raises InputError if they are missing, damaged or not written by `save`."""
    with open_files(folder) as files:
        yield Source(files, read_layout(files.header, files.path))


def _build(folder: Path, source: Source) -> nn.Module:
    """The untrained model for the tensors."""
    layout = source.layout
    if "" in layout.layers:
        return nn.Identity()  # the model is a single sparseq layer, which `place_layers` puts here
    if layout.architecture is None or not os.path.lexists(folder / CONFIG):
        raise InputError(f"{folder} does not say how to rebuild its model (no {CONFIG}); pass load() the model to fill")
    return build(read_config(folder, layout), layout, source.header, folder)


def _memory() -> int | None:
    """The size of the machine's memory in bytes, if the system reports it."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
