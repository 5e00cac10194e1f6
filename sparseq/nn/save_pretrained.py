"""Gives transformers models with sparseq layers what transformers asks about a quantized model.

Each part of such a model that is a transformers model gets an `hf_quantizer`. `sparseq.hf` says which (`use_quantizer`)
once transformers is there; with it `save_pretrained` writes what `sparseq.save` does. Without it, `save_pretrained` of
packed layers must raise: it would write their tensors, but not what they are, and a plain class that loads such a
folder finds no weight and takes random ones.

`tie_weights` of transformers would look for packed weights among the parameters; packed layers share buffers instead.
"""

import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import NoReturn

from torch import nn

from sparseq_kernels import InputError

from .layers import named_layers
from .packed import Packed

_INSTEAD = "save it by sparseq.save(model, folder), which sparseq.load and from_pretrained read"

# Makes the quantizer of a part of a model; None for a part that is no model of transformers.
MakeQuantizer = Callable[[nn.Module, bool], object | None]
_makers: list[MakeQuantizer] = []


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
        raise InputError("sparseq.nn.dequantize(model) turns packed layers into plain ones")


def use_quantizer(make: MakeQuantizer) -> None:
    """Has `attach_quantizer` take what `make(part, packed)` returns."""
    _makers[:] = [make]


def attach_quantizer(model: nn.Module) -> nn.Module:
    """Gives each part of the model that transformers can save its quantizer; returns the model, changed in place."""
    for part in model.modules():
        if not hasattr(part, "save_pretrained"):
            continue
        layers = [layer for _, layer in named_layers(part)]
        packed = any(isinstance(layer, Packed) for layer in layers)
        if not layers:
            continue
        quantizer = _makers[0](part, packed) if _makers else None
        if quantizer is not None or packed:
            part.hf_quantizer = quantizer or SavedBySparseq()  # type: ignore[assignment]
        if packed:
            _forget_ties(part)
    return model


def detach_quantizer(model: nn.Module) -> nn.Module:
    """The reverse, once the model has plain layers: no quantizer, and the ties by name that its class has."""
    for part in model.modules():
        if part.__dict__.pop("hf_quantizer", None) is not None:
            part.__dict__.pop("_tied_weights_keys", None)
            if hasattr(part, "get_expanded_tied_weights_keys"):
                part.all_tied_weights_keys = part.get_expanded_tied_weights_keys(all_submodels=True)  # type: ignore[operator]
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
