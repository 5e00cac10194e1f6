"""The weights of the best evaluation of a training, beside its checkpoints."""

import shutil
from collections.abc import Collection
from pathlib import Path

from safetensors.torch import save_file
from torch import nn

from sparseq.checkpoint import WEIGHTS, contents
from sparseq.errors import InputError, MachineError
from sparseq.failures import writing
from sparseq.reading import brief

from .durable import seal, unseal
from .folder import MARKER


def save_weights(model: nn.Module, folder: Path) -> None:
    """Writes the tensors of a model in training into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = contents(model).tensors
    save_file({name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}, folder / WEIGHTS)


class BestWeights:
    """Folders `best-N` among a run's checkpoints, with the weights after step N, sealed like a checkpoint.

    A run that continues from a checkpoint needs the weights that were the best when that was written. So they stay as
    long as it does (`tidy`), and a run ends with the same ones however often it was interrupted.
    """

    def __init__(self, checkpoints: Path) -> None:
        self.checkpoints = checkpoints

    def save(self, step: int, model: nn.Module) -> None:
        """Writes the weights of this step completely or not at all. Raises MachineError if that is not possible."""
        folder = self._folder(step)
        try:
            with writing(folder):
                shutil.rmtree(folder, ignore_errors=True)
                save_weights(model, folder)
            seal(folder, MARKER, {"step": step})
        except MachineError:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def tidy(self, kept: Collection[int]) -> None:
        """Removes the weights of all steps but these."""
        for path in self.checkpoints.glob("best-*"):
            if path.is_dir() and path.name not in {self._folder(step).name for step in kept}:
                shutil.rmtree(path)

    def checked(self, step: int) -> Path:
        """The folder with the weights of this step. Raises InputError if they are not there as they were written."""
        folder = self._folder(step)
        try:
            unseal(folder, MARKER)
        except ValueError as error:
            raise InputError(
                f"{folder}, with the best weights so far, is damaged ({brief(error)}): remove {self.checkpoints} to "
                "train again, or run it into another --out"
            ) from error
        return folder

    def _folder(self, step: int) -> Path:
        return self.checkpoints / f"best-{step}"
