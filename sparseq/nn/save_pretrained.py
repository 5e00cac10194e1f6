"""Keeps transformers' `save_pretrained` from writing packed layers, and its `tie_weights` from tying them by name.

The one would write their tensors, but not what they are: a plain class that loads such a folder finds no weight, and
takes random ones. The other would look for their weights among the parameters; packed layers share buffers instead.
"""

import re
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

    # Asked by `generate`, whether it may compile the model for a static cache.
    is_compileable = False
    # Asked by Trainer, of a model with adapters: gradients pass through packed layers to them.
    is_trainable = True
    # Asked by Trainer, of a model without.
    is_qat_trainable = False

    def is_serializable(self) -> bool:
        return False

    def dequantize(self, model: nn.Module, dtype: object = None) -> NoReturn:
        raise InputError("a packed model cannot be turned back; keep the model that it was packed from")


def refuse_save_pretrained(model: nn.Module) -> nn.Module:
    """Has `save_pretrained` of each part of the model with packed layers raise, and name `sparseq.save`; returns the
    model. A ValueError of transformers, before anything is written. `tie_weights` ties what are parameters still."""
    for part in model.modules():
        if hasattr(part, "save_pretrained") and any(isinstance(module, Packed) for module in part.modules()):
            part.hf_quantizer = SavedBySparseq()  # type: ignore[assignment]
            _forget_ties(part)
    return model


def _forget_ties(part: nn.Module) -> None:
    """Leaves of the ties by name, of which each target is a pattern and has a pattern for its source, those that both
    name a parameter."""
    names = [name for name, _ in part.named_parameters(remove_duplicate=False)]

    def there(pattern: str) -> bool:
        return any(re.match(pattern, name) for name in names)

    for attribute in ("_tied_weights_keys", "all_tied_weights_keys"):
        ties = getattr(part, attribute, None)
        if isinstance(ties, dict):
            setattr(part, attribute, {t: s for t, s in ties.items() if there(t) and there(s)})
