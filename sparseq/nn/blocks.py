"""A model's repeated blocks, found by its structure."""

from collections.abc import Iterator
from typing import Any

from torch import nn

CONTAINERS = (nn.ModuleList, nn.Sequential, nn.ModuleDict)


def repeated_blocks(model: nn.Module) -> dict[str, nn.Module]:
    """The blocks that make up an encoder or a decoder, by name.

    These are members of a list (`nn.ModuleList`, `nn.Sequential`, `nn.ModuleDict`) that are of one class and contain
    matrices, two or more of them. A single one counts if the model's `config` says that there is one block
    (`num_hidden_layers`), or one that all layers share (ALBERT's `num_hidden_groups`).

    Members that are models themselves (an ensemble, a pair of encoders) are not blocks: the function looks for blocks
    inside them. Blocks within blocks (experts) are not listed separately.
    """
    return dict(_blocks(model, "", None))


def _blocks(module: nn.Module, name: str, config: Any) -> Iterator[tuple[str, nn.Module]]:
    config = getattr(module, "config", None) or config
    found: dict[str, nn.Module] = {}
    if isinstance(module, CONTAINERS):
        groups: dict[Any, dict[str, nn.Module]] = {}
        for child, item in module._modules.items():  # a block that occurs several times counts several times
            if item is not None and _may_repeat(item):
                groups.setdefault(_kind(item), {})[child] = item
        for group in groups.values():
            if len(group) > 1 or (len(module) == 1 and 1 in _depths(config)):
                found |= group
    for child, member in module._modules.items():
        full = f"{name}.{child}" if name else child
        if child in found:
            yield full, found[child]
        elif member is not None:
            yield from _blocks(member, full, config)


def _may_repeat(member: nn.Module) -> bool:
    """Whether a list's member can be a block: more than a single layer, and less than a whole model."""
    if not list(member.children()) or not any(p.dim() > 1 for p in member.parameters()):
        return False
    if hasattr(member, "get_input_embeddings"):
        return False
    embeds = any(isinstance(m, nn.Embedding) for m in member.modules())
    return not (embeds and any(True for _ in _blocks(member, "", None)))


def _kind(member: nn.Module) -> Any:
    """A key that is equal for repetitions of the same block; lists of layers are equal if their layers are."""
    if isinstance(member, CONTAINERS):
        return type(member), tuple(_kind(child) for child in member.children())
    return type(member)


def _depths(config: Any) -> set[Any]:
    """The numbers of blocks in a transformers configuration, by the names of the entries."""
    names = ("num_hidden_layers", "num_hidden_groups", "num_layers", "num_decoder_layers", "encoder_layers", "n_layer")
    return {getattr(config, name, None) for name in (*names, "decoder_layers", "n_layers")}
