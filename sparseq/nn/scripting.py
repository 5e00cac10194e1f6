"""What `torch.jit.script` is told: it compiles Python that the layers here do not have."""

from typing import NoReturn

from torch import nn

from sparseq_kernels import InputError


def refuse_torchscript(layer: nn.Module) -> NoReturn:
    """Raises InputError. `torch.jit.script` calls a module's `__prepare_scriptable__` before anything else."""
    raise InputError(
        f"{type(layer).__name__} cannot be scripted by TorchScript, which torch has deprecated: use "
        "torch.compile(model), torch.export.export(model, inputs), or sparseq.load in Python"
    )
