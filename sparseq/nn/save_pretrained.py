"""Keeps transformers' `save_pretrained` from writing packed layers.

It would write their tensors, but not what they are: a plain class that loads such a folder finds no weight, and takes
random ones.
"""

from types import SimpleNamespace
from typing import NoReturn

from torch import nn

from sparseq_kernels import InputError

from .packed import Packed

_INSTEAD = "save it by sparseq.save(model, folder), which sparseq.load and from_pretrained read"


class SavedBySparseq:
    """Stands where transformers has a quantizer that cannot be serialized, and names the way out in its message."""

    def __init__(self) -> None:
        self.quantization_config = SimpleNamespace(quant_method=f"sparseq ({_INSTEAD})")

    def is_serializable(self) -> bool:
        return False

    def dequantize(self, model: nn.Module, dtype: object = None) -> NoReturn:
        raise InputError("a packed model cannot be turned back; keep the model that it was packed from")


def refuse_save_pretrained(model: nn.Module) -> nn.Module:
    """Has `save_pretrained` of each part of the model with packed layers raise, and name `sparseq.save`; returns the
    model. A ValueError of transformers, before anything is written."""
    for part in model.modules():
        if hasattr(part, "save_pretrained") and any(isinstance(module, Packed) for module in part.modules()):
            part.hf_quantizer = SavedBySparseq()  # type: ignore[assignment]
    return model
