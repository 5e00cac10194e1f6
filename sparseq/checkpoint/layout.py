"""The layout: the description of the model in the header, checked against the tensors before anything is built.

JSON, in the header's text entry "sparseq": an object with "version", "architecture" (the model's class, or null),
"aliases" (further name of a shared tensor -> its first) and "layers" (module name -> {"class", "settings"}). From
version 2 on also "config" (sha256 of config.json, or null), "dtypes" (floating dtypes of the tensors outside the
layers) and "sentinels" (names of tensors that are not part of the model).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparseq.errors import InputError
from sparseq.nn import LAYERS, RENAMED_STATE
from sparseq.nn.stored import check_settings, shape_of, tensor_specs
from sparseq.reading import strict_json
from sparseq_kernels.untrusted import fields, one_of, quoted

from .header import Entry, Header, check_name
from .names import KEY, READABLE
from .sentinels import is_guarded
from .state import plain_dtypes

__all__ = ["Layer", "Layout", "read_layout"]

_FIELDS = {
    1: ("version", "architecture", "aliases", "layers"),
    2: ("version", "architecture", "aliases", "layers", "config", "dtypes", "sentinels"),
}
# A sparse weight is expanded when it is loaded, and its file may be much smaller: at most this many weights per byte,
# or this many whatever the size of the file.
_WEIGHTS_PER_BYTE, _WEIGHTS_ANYWAY = 4096, 2**26


@dataclass(frozen=True)
class Layer:
    """kind: the name of its class. tensors: its state, by the names in the layer."""

    kind: str
    settings: dict[str, Any]
    tensors: dict[str, Entry]

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of its weight."""
        return shape_of(self.kind, self.settings)


@dataclass(frozen=True)
class Layout:
    """What a file says about its model.

    origin: name in the model's state -> name in the file, for every tensor except the sentinels. guarded: names in the
    file of the tensors that are stored with one more axis, see `sentinels.py`.
    """

    version: int
    architecture: str | None
    layers: dict[str, Layer]
    origin: dict[str, str]
    config: str | None
    sentinels: tuple[str, ...]
    guarded: frozenset[str]

    @property
    def weights(self) -> int:
        """The number of weights in the layers, including those that are pruned."""
        return sum(layer.shape[0] * layer.shape[1] for layer in self.layers.values())


def read_layout(header: Header, path: Path) -> Layout:
    """The checked layout. Raises InputError if the file was not written by `save`, or if its layout is wrong."""
    if KEY not in header.metadata:
        raise InputError(f"{path} was not written by sparseq.save; load it with the library that wrote it")
    try:
        return _parse(strict_json(header.metadata[KEY], "its layout"), header, path)
    except _VersionError:
        raise
    except InputError as error:
        raise InputError(f"{path} was altered after it was saved, or is damaged: {error}; save it again") from error


class _VersionError(InputError):
    """The file has a format version that only another version of sparseq reads."""


def _parse(layout: Any, header: Header, path: Path) -> Layout:
    version = layout.get("version") if isinstance(layout, dict) else None
    if type(version) is int and version > max(READABLE):
        raise _VersionError(
            f"{path} has format version {version}, this sparseq reads {READABLE[0]} to {READABLE[-1]}; update sparseq"
        )
    version = int(one_of(version, READABLE, "its version"))
    found = fields(layout, _FIELDS[version], "its layout")
    architecture = found["architecture"]
    if architecture is not None and not (isinstance(architecture, str) and _NAME.fullmatch(architecture)):
        raise InputError(f"architecture is {quoted(architecture)}, and must be the name of a class")
    config = _digest(found.get("config"))
    if version > 1 and (config is None) != (architecture is None):
        raise InputError("a model has both an architecture and a sha256 of its config, or neither")
    sentinels = _sentinels(found.get("sentinels", []), header.entries)
    origin = {name: name for name in header.entries if name not in sentinels}
    origin |= _aliases(found["aliases"], origin, header.entries)
    if not isinstance(found["layers"], dict):
        raise InputError(f"layers is {quoted(found['layers'])}, and must be an object")
    if version == 1:
        origin = _renamed(origin, found["layers"])
    guarded = frozenset(name for name in header.entries if version > 1 and is_guarded(name, found["layers"]))
    result = Layout(version, architecture, {}, origin, config, sentinels, guarded)
    weights = 0
    for name, entry in found["layers"].items():
        result.layers[name] = layer = _layer(name, entry, header, origin, guarded)
        weights += layer.shape[0] * layer.shape[1]
        if weights > max(_WEIGHTS_ANYWAY, _WEIGHTS_PER_BYTE * header.size):
            raise InputError(f"its layers have {weights:,} weights or more, which {header.size:,} bytes do not hold")
    _check_names(result)
    if version > 1:
        own = {name: entry.dtype for name, entry in header.entries.items() if name not in sentinels}
        dtypes = plain_dtypes(own, result.layers)
        if found["dtypes"] != dtypes:
            raise InputError(f"dtypes is {quoted(found['dtypes'])}, and those of its tensors are {dtypes}")
    return result


_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def _digest(value: Any) -> str | None:
    if value is not None and not (isinstance(value, str) and _DIGEST.fullmatch(value)):
        raise InputError(f"config is {quoted(value)}, and must be a sha256 in hex, or null")
    return value


def _sentinels(names: Any, entries: Mapping[str, Entry]) -> tuple[str, ...]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise InputError(f"sentinels is {quoted(names)}, and must be a list of different names")
    for name in names:
        check_name(name, "a sentinel")
        if name not in entries:
            raise InputError(f"there is no tensor {quoted(name)}, a sentinel")
        if entries[name].numel:
            raise InputError(f"{quoted(name)}, a sentinel, has values")
    return tuple(names)


def _aliases(aliases: Any, origin: Mapping[str, str], entries: Mapping[str, Entry]) -> dict[str, str]:
    if not isinstance(aliases, dict):
        raise InputError(f"aliases is {quoted(aliases)}, and must be an object of names")
    for name, first in aliases.items():
        check_name(name, "another name of a tensor")
        if name in entries:
            raise InputError(f"{quoted(name)} is a tensor, and cannot be another name of one")
        if not isinstance(first, str) or first not in origin:
            raise InputError(f"{quoted(name)} is another name of {quoted(first)}, and the file holds no such tensor")
    return aliases


def _renamed(origin: Mapping[str, str], layers: Mapping[str, Any]) -> dict[str, str]:
    """`origin` with the layers' tensors under their present names."""
    result = {}
    for name, first in origin.items():
        module, dot, key = name.rpartition(".")
        result[f"{module}{dot}{RENAMED_STATE.get(key, key)}" if module in layers else name] = first
    if len(result) < len(origin):
        raise InputError("a layer has a tensor under its old name and its new one")
    return result


def _layer(name: str, entry: Any, header: Header, origin: Mapping[str, str], guarded: frozenset[str]) -> Layer:
    check_name(name, "a layer")
    where = f"layer {quoted(name)}"
    found = fields(entry, ("class", "settings"), where)
    kind = one_of(found["class"], tuple(LAYERS), f"{where}: class")
    check_settings(kind, found["settings"], where)
    tensors = {}
    for key, spec in tensor_specs(kind, found["settings"]).items():
        full = f"{name}.{key}" if name else key
        if full not in origin:
            raise InputError(f"{where} has no tensor {key!r}")
        tensor = tensors[key] = header.entries[origin[full]]
        shape = (*spec.shape, 1) if origin[full] in guarded else spec.shape
        if tensor.shape != shape:
            raise InputError(f"{where}: {key} is of shape {list(tensor.shape)}, and must be {list(shape)}")
        if tensor.dtype not in spec.dtypes:
            wanted = " or ".join(str(dtype) for dtype in spec.dtypes)
            raise InputError(f"{where}: {key} is of {tensor.dtype}, and must be {wanted}".replace("torch.", ""))
    return Layer(kind, found["settings"], tensors)


def _check_names(layout: Layout) -> None:
    """Raises InputError unless each layer's tensors are exactly those below its name."""
    for name in layout.layers:
        for above in _ancestors(name):
            if above in layout.layers:
                raise InputError(f"layer {quoted(name)} is inside layer {quoted(above)}")
    for name in layout.origin:
        for above in _ancestors(name):
            layer = layout.layers.get(above)
            if layer is not None and name[len(above) :].removeprefix(".") not in layer.tensors:
                raise InputError(f"layer {quoted(above)} has a tensor {quoted(name)} that it does not need")
    for name in layout.sentinels:
        if not any(above in layout.layers for above in _ancestors(name)):
            raise InputError(f"{quoted(name)}, a sentinel, stands in no layer")


def _ancestors(name: str) -> Iterator[str]:
    """Names of the modules around this one: "a.b", "a" and "" for "a.b.c"."""
    while name:
        name = name.rpartition(".")[0]
        yield name
