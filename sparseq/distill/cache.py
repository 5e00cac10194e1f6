"""The teacher's logits, computed once for the same rows and teacher, and kept on disk."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def digest_texts(columns: Iterable[Sequence[str]]) -> str:
    """sha256 of the rows' texts, in order: `columns` holds the one or two text columns."""
    found = hashlib.sha256()
    for column in columns:
        found.update(f"{len(column)}\n".encode())
        for text in column:
            found.update(json.dumps(text).encode() + b"\n")
    return found.hexdigest()


def digest_model(model: nn.Module) -> str:
    """sha256 of a model's parameters and buffers: names, types, shapes and values."""
    found = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


@dataclass(frozen=True)
class TeacherLogits:
    """The logits of one teacher on given rows, in `folder`, in a file named after `key`.

    key: everything that the logits depend on (rows, teacher, tokenizer, length, precision); its sha256 names the file.
    """

    folder: Path
    key: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The safetensors file, there or not."""
        return self.folder / f"{hashlib.sha256(json.dumps(self.key).encode()).hexdigest()[:32]}.safetensors"

    def load(self, rows: int) -> Tensor | None:
        """The cached logits [rows, labels], fp32; None where there are none, or the file is not whole."""
        try:
            logits = load_file(self.path)["logits"]
        except (OSError, SafetensorError, KeyError):
            return None
        return logits if len(logits) == rows else None

    def get(self, rows: int, compute: Callable[[], Tensor]) -> Tensor:
        """The logits [rows, labels], fp32: from the file, otherwise computed and written there, whole or not at all."""
        logits = self.load(rows)
        if logits is None:
            logits = compute().float().cpu().contiguous()
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = self.path.with_name(f"{self.path.name}.{os.getpid()}.partial")
            save_file({"logits": logits}, partial)
            os.replace(partial, self.path)
        return logits
