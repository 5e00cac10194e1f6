"""The layers that magnitude pruning acts on."""

from collections.abc import Iterable, Mapping

from torch import nn

from .linear import QuantSparseLinear
from .masking import MaskedWeight
from .selectors import Selector, chosen


def prunable(
    model: nn.Module, *, embeddings: bool = False, include: Iterable[Selector] = (), exclude: Iterable[Selector] = ()
) -> dict[str, MaskedWeight]:
    """The layers that magnitude pruning acts on, by name: the linear layers inside numbered blocks, which are an
    encoder's (`encoder.layer.3.output.dense`) and not its pooler or head; all linear layers where a model has no such
    blocks; and the embeddings if asked for, which the paper found to harm accuracy significantly (Movva et al.
    2022)."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, MaskedWeight)}
    picked = prunable_names(
        {name: isinstance(module, QuantSparseLinear) for name, module in layers.items()}, embeddings
    )
    include, exclude = tuple(include), tuple(exclude)
    return {n: layers[n] for n in picked if chosen(n, layers[n], include, exclude)}


def prunable_names(is_linear: Mapping[str, bool], embeddings: bool) -> list[str]:
    """Of the layers named (True for a linear one, False for an embedding) those that pruning acts on."""
    linear = [name for name, yes in is_linear.items() if yes]
    numbered = [name for name in linear if any(part.isdecimal() for part in name.split("."))]
    tables = [name for name, yes in is_linear.items() if not yes] if embeddings else []
    return (numbered or linear) + tables
