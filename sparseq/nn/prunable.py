"""The layers that pruning acts on."""

from collections.abc import Iterable, Mapping

from torch import nn

from .blocks import repeated_blocks
from .masking import MaskedWeight
from .related import first_names
from .selectors import Selector, chosen, selectors


def prunable(
    model: nn.Module,
    *,
    embeddings: bool = False,
    include: Iterable[Selector] | Selector = (),
    exclude: Iterable[Selector] | Selector = (),
) -> dict[str, MaskedWeight]:
    """The layers that pruning acts on, by name; each weight occurs once.

    These are the linear layers inside repeated blocks (see `repeated_blocks`): those of an encoder
    (`encoder.layer.3.output.dense`), not its pooler or head. If a model has no such blocks, or if `include` names other
    layers, all linear layers count.

    Embeddings, and linear layers that share an embedding's weight, are included only with `embeddings`: pruning them
    harms accuracy significantly (Movva et al. 2022).
    """
    include, exclude = selectors("include", include), selectors("exclude", exclude)
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, MaskedWeight) and chosen(name, module, include, exclude)
    }
    named = any(isinstance(selector, str) for selector in include)
    return {name: layers[name] for name in prunable_names(model, layers, embeddings, named)}


def prunable_names(model: nn.Module, layers: Mapping[str, nn.Module], embeddings: bool, named: bool) -> list[str]:
    """The names of those of the model's `layers` (linear layers and embeddings) that pruning acts on.

    named: whether the layers were chosen by name; then they need not be inside a block.
    """
    tables = {id(m.weight) for m in model.modules() if isinstance(m, nn.Embedding)}
    linear = [n for n, m in layers.items() if isinstance(m, nn.Linear) and id(m.weight) not in tables]
    blocks = repeated_blocks(model)
    inside = [name for name in linear if any(name.startswith(f"{block}.") for block in blocks)]
    picked = inside or (linear if named or not blocks else [])
    if embeddings:
        picked = picked + [name for name, module in layers.items() if isinstance(module, nn.Embedding)]
    first = first_names({name: layers[name].weight for name in picked})  # type: ignore[misc]
    return [name for name in picked if first[name] == name]


def why_none(model: nn.Module, layers: Mapping[str, nn.Module]) -> str:
    """Why pruning has no layer to act on, and what to do about it."""
    tables = {id(m.weight): n for n, m in model.named_modules() if isinstance(m, nn.Embedding)}
    tied = next((n for n, m in layers.items() if isinstance(m, nn.Linear) and id(m.weight) in tables), None)
    shared = ""
    if tied is not None:
        table = tables[id(layers[tied].weight)]
        shared = f"; {tied!r} shares its weight with embedding {table!r}, which is pruned only if you ask for it"
    blocks = repeated_blocks(model)
    if blocks:
        within = f"its {len(blocks)} repeated blocks ({next(iter(blocks))!r} is the first) hold no linear layer of ours"
    else:
        within = "it has no linear layer of its own"
    return (
        f"there is nothing to prune: {within}{shared}: name layers outside the blocks with include=, or prune "
        "embeddings with prune_embeddings=True"
    )
