"""The teacher's logits, computed once for the same rows and teacher, and kept on disk."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from sparseq.errors import InputError, MachineError
from sparseq.failures import writing
from sparseq.reading import read_bytes

FORMAT = 2
"""The format of the cached files; part of every key, so that files of another format are never read."""


@dataclass(frozen=True)
class TeacherLogits:
    """The logits of one teacher on given rows, in `folder`, in a file named after `key`.

    key: everything that the logits depend on (rows, teacher, tokenizer, length, precision); its sha256 names the file.
    """

    folder: Path
    key: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The path of the safetensors file, whether or not it exists."""
        return self.folder / f"{hashlib.sha256(json.dumps([FORMAT, *self.key]).encode()).hexdigest()[:32]}.safetensors"

    def load(self, rows: int) -> Tensor | None:
        """The cached logits [rows, labels], fp32; None if there are none, or if the file was changed."""
        try:
            found = load(read_bytes(self.path))
            logits, digest = found["logits"], found["sha256"]
        except (InputError, SafetensorError, KeyError):
            return None
        if logits.dtype != torch.float32 or logits.dim() != 2 or len(logits) != rows:
            return None
        return logits if torch.equal(digest, self._digest(logits)) else None

    def get(self, rows: int, compute: Callable[[], Tensor], say: Callable[[str], None] | None = None) -> Tensor:
        """The logits [rows, labels], fp32: from the file, or else computed and written to it, completely or not at all.

        say: called with a message if they cannot be written; without it, MachineError is raised.
        """
        logits = self.load(rows)
        if logits is None:
            logits = compute().float().cpu().contiguous()
            try:
                self._store(logits)
            except MachineError as error:
                if say is None:
                    raise
                say(f"the teacher's logits are not kept for another run: {error}")
        return logits

    def _store(self, logits: Tensor) -> None:
        with writing(self.path, way_out="free or fix that, or name another folder in SPARSEQ_CACHE"):
            self.folder.mkdir(parents=True, exist_ok=True)
            descriptor, partial = tempfile.mkstemp(".partial", f"{self.path.name}.", self.folder)
            os.close(descriptor)
            try:
                save_file({"logits": logits, "sha256": self._digest(logits)}, partial)
                os.replace(partial, self.path)
            except BaseException:
                os.unlink(partial)
                raise

    def _digest(self, logits: Tensor) -> Tensor:
        """sha256 of key, shape and values: uint8 [32]."""
        found = hashlib.sha256(json.dumps([self.key, list(logits.shape)]).encode())
        found.update(logits.numpy().data if logits.numel() else b"")
        return torch.frombuffer(bytearray(found.digest()), dtype=torch.uint8)
