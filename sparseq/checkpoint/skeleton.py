"""Putting a file's layers and tensors into an existing model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparseq.errors import InputError
from sparseq.nn import LAYERS, PackedEmbedding, PackedLinear
from sparseq.nn.fused import fuse
from sparseq.nn.save_pretrained import attach_quantizer
from sparseq_kernels.untrusted import quoted

from .header import Header
from .layout import Layer, Layout

__all__ = ["check_state", "fill", "place_layers"]

# The linear classes and the embedding classes, and the names of their weight's rows and columns.
_KINDS: tuple[tuple[tuple[type[nn.Module], ...], str, str], ...] = (
    ((nn.Linear, PackedLinear), "out_features", "in_features"),
    ((nn.Embedding, PackedEmbedding), "num_embeddings", "embedding_dim"),
)


def place_layers(model: nn.Module, layout: Layout, path: Path) -> nn.Module:
    """Replaces the named modules by sparseq layers on the meta device; returns the model.

    The returned model is a new one if it is a single layer. Raises InputError if a module is missing, or of another
    kind or shape; then nothing is replaced.
    """
    if "" in layout.layers and type(model) is nn.Identity:
        return _made(layout.layers[""])
    places = {}
    for name, layer in layout.layers.items():
        try:
            places[name] = model.get_submodule(name)
        except AttributeError as error:
            raise InputError(
                f"the model has no module {quoted(name)}, which {path} holds; pass a fitting model"
            ) from error
        _check_place(name, layer, places[name], path)
    made: dict[int, nn.Module] = {}
    firsts: dict[int, Layer] = {}
    for name, layer in layout.layers.items():
        old = places[name]
        if id(old) not in made:
            made[id(old)], firsts[id(old)] = _made(layer), layer
        elif (layer.kind, layer.settings) != (firsts[id(old)].kind, firsts[id(old)].settings):
            raise InputError(f"{quoted(name)} is one module under two names in the model, and two in {path}")
        if not name:
            return made[id(old)]
        parent, _, attribute = name.rpartition(".")
        setattr(model.get_submodule(parent), attribute, made[id(old)])
    return model


def check_state(model: nn.Module, layout: Layout, header: Header, path: Path, *, part: bool = False) -> None:
    """Checks that the model's state and the file have the same names, with the same shapes and kinds of dtype.

    part: ignore names that only one of them has. Raises InputError if they differ.
    """
    expected = model.state_dict(keep_vars=True)
    for name, wanted in expected.items():
        if name not in layout.origin:
            if part:
                continue
            raise InputError(f"{path} does not hold {quoted(name)}, which the model needs; pass a fitting model")
        found = header.entries[layout.origin[name]]
        shape = found.shape[:-1] if layout.origin[name] in layout.guarded else found.shape
        if shape != wanted.shape:
            raise InputError(
                f"{quoted(name)} has shape {shape} in {path}, but {tuple(wanted.shape)} in the model; "
                "pass a fitting model or mend config.json"
            )
        if _kind(found.dtype) != _kind(wanted.dtype):
            raise InputError(
                f"{quoted(name)} is of {found.dtype} in {path}, but of {wanted.dtype} in the model; "
                "pass a fitting model"
            )
    unknown = sorted(set(layout.origin) - set(expected))
    if unknown and not part:
        raise InputError(f"{path} holds {quoted(unknown[0])}, which the model does not have; pass a fitting model")


def fill(model: nn.Module, layout: Layout, tensors: Mapping[str, Tensor]) -> None:
    """Puts the tensors into the model without copying; names that share a tensor share one Parameter again."""
    parameters: dict[str, nn.Parameter] = {}
    state: dict[str, Tensor] = {}
    expected = model.state_dict(keep_vars=True)
    for name, wanted in expected.items():
        first = layout.origin[name]
        state[name] = tensors[first]
        if isinstance(wanted, nn.Parameter):
            state[name] = parameters.setdefault(first, nn.Parameter(tensors[first], wanted.requires_grad))
    model.load_state_dict(state, assign=True)
    for name, wanted in expected.items():
        module, _, own = name.rpartition(".")
        # A bias shared by a packed head and another module is one object, so that moves and casts change it once.
        if layout.origin[name] in parameters and not isinstance(wanted, nn.Parameter):
            model.get_submodule(module)._buffers[own] = parameters[layout.origin[name]]
    fuse(attach_quantizer(model))


def _made(layer: Layer) -> nn.Module:
    kind: Any = LAYERS[layer.kind]
    with torch.device("meta"):  # all its tensors come from the file
        made: nn.Module = kind.from_settings(layer.settings)
    return made


def _check_place(name: str, layer: Layer, old: nn.Module, path: Path) -> None:
    for kinds, rows, columns in _KINDS:
        if not issubclass(LAYERS[layer.kind], kinds):
            continue
        if not isinstance(old, kinds):
            raise InputError(
                f"{quoted(name)} is a {type(old).__name__} in the model, and a {layer.kind} in {path}; "
                "pass a fitting model"
            )
        shape = getattr(old, rows), getattr(old, columns)
        if shape != layer.shape:
            raise InputError(
                f"{quoted(name)} is {' x '.join(map(str, shape))} ({rows} x {columns}) in the model, and "
                f"{' x '.join(map(str, layer.shape))} in {path}; pass a fitting model or mend config.json"
            )
        # An embedding renormalizes the rows that it looks up to max_norm; packing has applied it.
        if isinstance(old, nn.Embedding) and "max_norm" in layer.settings:
            norms = layer.settings["max_norm"], layer.settings["norm_type"]
            if norms[0] != old.max_norm or (old.max_norm is not None and norms[1] != old.norm_type):
                raise InputError(
                    f"{quoted(name)} has max_norm {old.max_norm} in the model, and {norms[0]} in {path} "
                    f"(norm_type {old.norm_type} and {norms[1]}); pass a fitting model"
                )
        if kinds[0] is nn.Linear and (old.bias is None) != ("bias" not in layer.tensors):
            raise InputError(f"{quoted(name)} has a bias in only one of the model and {path}; pass a fitting model")


def _kind(dtype: torch.dtype) -> Any:
    """A key that is equal for dtypes that can replace each other: a model made in fp32 accepts tensors in bf16."""
    return "floating" if dtype.is_floating_point else dtype
