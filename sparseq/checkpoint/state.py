"""The content of a file: the tensors and the description of a model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sparseq.errors import InputError
from sparseq.nn import LAYERS
from sparseq.nn.unwrap import plain_modules, plain_state, unwrapped

from .header import DTYPES, check_name, encode
from .names import CHECKSUM, FORMAT_VERSION, KEY
from .sentinels import guarded, is_guarded, sentinel, sentinel_name

__all__ = ["Contents", "contents", "has_config"]


@dataclass(frozen=True)
class Contents:
    """What `save` writes for a model.

    tensors: state-dict name -> tensor, each shared tensor once, under its first name. aliases: every further name of a
    shared tensor -> its first. layers: module name -> {"class", "settings"} of the sparseq layers. architecture: the
    class of a transformers model. sentinels: name -> tensor that is written in addition and is not part of the model;
    its shape is wrong where a library without sparseq would otherwise use random weights.
    """

    tensors: dict[str, Tensor]
    aliases: dict[str, str]
    layers: dict[str, dict[str, Any]]
    architecture: str | None
    sentinels: dict[str, Tensor] = field(default_factory=dict)

    def stored(self) -> dict[str, Tensor]:
        """Every tensor of the file, by its name and in its shape there."""
        own = {
            name: guarded(tensor) if is_guarded(name, self.layers) else tensor for name, tensor in self.tensors.items()
        }
        return own | self.sentinels

    def metadata(self, extra: Mapping[str, str] | None = None, config: str | None = None) -> dict[str, str]:
        """The file's metadata without the checksum; "format" lets transformers read a plain model from it too.

        config: the sha256 of config.json, in hex; None if there is none.
        """
        layout = {
            "version": FORMAT_VERSION,
            "architecture": self.architecture,
            "aliases": self.aliases,
            "layers": self.layers,
            "config": config,
            "dtypes": plain_dtypes({name: tensor.dtype for name, tensor in self.tensors.items()}, self.layers),
            "sentinels": sorted(self.sentinels),
        }
        return {**(extra or {}), "format": "pt", KEY: json.dumps(layout, sort_keys=True, separators=(",", ":"))}

    def header(self) -> bytes:
        """The bytes that `save` writes before the first tensor; only the digits of the two checksums differ."""
        digits = "0" * 64
        metadata = {**self.metadata(config=None if self.architecture is None else digits), CHECKSUM: digits}
        return encode(self.stored(), metadata)


def contents(model: nn.Module) -> Contents:
    """What `save(model)` would write; tensors are not copied, and a model on the meta device is accepted.

    Wrappers of torch.compile, data parallelism and averages of weights, around the model or its parts, are left out.
    Raises InputError for a subclass of a sparseq layer, for shards of FSDP, and for state that no file can hold (see
    `check_tensor`).
    """
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first_names: dict[Any, str] = {}
    for name, tensor in plain_state(model).items():
        check_tensor(name, tensor)
        first = first_names.setdefault(_identity(tensor), name)
        if first == name:
            tensors[name] = tensor.detach()
        else:
            aliases[name] = first
    layers: dict[str, dict[str, Any]] = {}
    sentinels: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, module in plain_modules(model):
        if isinstance(module, tuple(LAYERS.values())):
            kind = type(module).__name__
            if LAYERS.get(kind) is not type(module):
                raise InputError(f"{name} is a {kind}, a subclass that a file cannot name; use {', '.join(LAYERS)}")
            layers[name] = {"class": kind, "settings": module.settings()}  # type: ignore[operator]
            own = None if id(module) in seen else sentinel_name(name, kind)
            if own is not None:
                sentinels[own] = sentinel()
            seen.add(id(module))
    inner = unwrapped(model)
    return Contents(tensors, aliases, layers, type(inner).__name__ if has_config(inner) else None, sentinels)


def check_tensor(name: str, tensor: Any) -> None:
    """Raises InputError unless a file can hold the tensor under this name."""
    check_name(name, "a tensor")
    if not isinstance(tensor, Tensor):
        raise InputError(f"{name} in the model's state is a {type(tensor).__name__}; only tensors can be saved")
    if nn.parameter.is_lazy(tensor):
        raise InputError(f"{name} is not initialized yet; run the model once, then save it")
    if type(tensor) not in (Tensor, nn.Parameter, nn.Buffer):
        raise InputError(f"{name} is a {type(tensor).__name__}, a subclass of Tensor that a file cannot hold")
    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_nested:
        kind = "quantized by torch" if tensor.is_quantized else f"of layout {tensor.layout}".replace("torch.", "")
        raise InputError(f"{name} is {kind}; only dense tensors can be saved: call to_dense() or dequantize() on it")
    if tensor.dtype not in DTYPES.values():
        raise InputError(
            f"{name} is of dtype {str(tensor.dtype).removeprefix('torch.')}, which a file cannot hold; "
            "cast it, for instance to bfloat16"
        )


def plain_dtypes(dtypes: Mapping[str, torch.dtype], layers: Mapping[str, Any]) -> list[str]:
    """The floating dtypes of tensors outside sparseq's layers, by their names in the file, sorted."""
    codes = {dtype: code for code, dtype in DTYPES.items()}
    plain = {dtype for name, dtype in dtypes.items() if name.rpartition(".")[0] not in layers}
    return sorted(codes[dtype] for dtype in plain if dtype.is_floating_point)


def has_config(model: nn.Module) -> bool:
    config = getattr(model, "config", None)
    return hasattr(config, "model_type") and hasattr(config, "save_pretrained")


def _identity(tensor: Tensor) -> Any:
    """A key that is equal for names of the same memory with the same view (tied parameters), and for nothing else."""
    if tensor.device.type == "meta" or tensor.numel() == 0:
        return id(tensor)
    views = tensor.is_conj(), tensor.is_neg()
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), views
