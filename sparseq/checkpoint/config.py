"""`config.json`: written with the model, covered by its checksum, and checked before a model is built from it.

transformers builds whatever a config says, at any cost and with code from anywhere. So the size, nesting, numbers and
names of a config are checked first.
"""

from __future__ import annotations

import copy
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sparseq.errors import InputError
from sparseq.reading import read_bytes, strict_json
from sparseq_kernels.dtypes import FLOAT_DTYPES
from sparseq_kernels.untrusted import quoted

from .architecture import config_class
from .layout import Layout
from .names import CONFIG, FORMAT_VERSION, METHOD, PREVIOUS, QUANTIZATION, STAGING, WEIGHTS
from .quantization import quantization_entry
from .state import Contents

__all__ = [
    "as_json",
    "check_values",
    "config_text",
    "digest",
    "parsed",
    "prepare_config",
    "read_config",
    "verify_config",
]

LARGEST_CONFIG = 16 * 2**20
_DEEPEST = 16
# The largest value of any integer, and of one that gives a number of layers, labels and the like, for which a config
# makes lists. Rotary bases and the longest contexts reach 10 million, hashed vocabularies 20 million.
_LARGEST, _MOST = 2**25, 2**16
_COUNTS = re.compile(r"(^|_)(layers?|labels|blocks|stages|experts|groups|copies)$")
# Integers that are amounts: not negative, except for the default of a class, such as -1 for "no limit". Others may be
# negative, such as an axis, or a layer counted from the last.
_SIZES = re.compile(
    r"^(num|n|max)_|"
    r"(^|_)(sizes?|heads|dim|width|length|positions|layers|labels|blocks|stages|experts|groups|copies)$"
)
# Objects whose keys are chosen by users and have no meaning to transformers.
_WORDS = ("label2id", "id2label")
# Entries that make transformers download code or weights, or run code from a hub.
_REFUSED = re.compile(
    r"auto_map|trust_remote_code|custom_pipelines|kernel_config|use_kernels|_?(attn|experts)_implementation(_internal)?"
)
# Floating-point entries and their ranges.
_RANGES = {
    re.compile(r"(^|_)eps(ilon)?$"): (0.0, 0.1),
    re.compile(r"(^|_)(dropout|prob|dropout_prob|dropout_rate|drop_path_rate|pdrop|layerdrop)$"): (0.0, 1.0),
    re.compile(r"(^|_)(initializer_range|init_std)$"): (0.0, 1e4),
}


def config_text(model: Any, held: Contents) -> str:
    """The text that `save` writes as config.json. Entries that refer to code on a hub are left out.

    held: the `contents` of the model. If it has sparseq layers, the text names them, and transformers leaves the folder
    to `sparseq.hf`. Raises InputError for a config that `load` would refuse.
    """
    config = copy.deepcopy(model.config)
    prepare_config(config, held)
    config.dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), config.dtype)
    written = json.loads(as_json(config))
    # transformers leaves out a name that has its default value, which would be misread if the default changed.
    written |= {name: value for name, value in json.loads(as_json(parsed(type(config), written))).items()
                if name not in written}  # fmt: skip
    written = {name: value for name, value in written.items() if not _REFUSED.fullmatch(name)}
    check_values(written, "the model's config", type(config))
    return json.dumps(written, indent=2, sort_keys=True) + "\n"


def prepare_config(config: Any, held: Contents) -> None:
    """Sets the entries of a model's config that describe what is saved: its class, and its sparseq layers if any."""
    if hasattr(config, QUANTIZATION):
        delattr(config, QUANTIZATION)
    if held.layers:
        layers = {name: (entry["class"], entry["settings"]) for name, entry in held.layers.items()}
        setattr(config, QUANTIZATION, quantization_entry(layers, FORMAT_VERSION))
    config.architectures = [held.architecture]


def digest(text: bytes) -> str:
    """Hex sha256."""
    return hashlib.sha256(text).hexdigest()


def read_config(folder: Path, layout: Layout) -> dict[str, Any]:
    """The checked values of the folder's config.json.

    Raises InputError if it is missing, was changed after `save` wrote it (in format 1 the checksum does not cover it),
    or has invalid values.
    """
    text = _text(folder, layout)
    config = strict_json(text, str(folder / CONFIG))
    check_values(config, str(folder / CONFIG), config_class(layout.architecture))
    if config.get("architectures") not in (None, [layout.architecture]):
        raise InputError(
            f"{folder / CONFIG} is of {quoted(config['architectures'])}, and the model is a {layout.architecture}; "
            "save the model again"
        )
    if config.get(QUANTIZATION) not in _entries(layout):
        raise InputError(
            f"{folder / CONFIG}: {QUANTIZATION} is {quoted(config.get(QUANTIZATION))}, and does not agree with the "
            f"layers of {WEIGHTS}; save the model again"
        )
    return dict(config)


def verify_config(folder: Path, layout: Layout) -> None:
    """Raises InputError unless config.json is as `save` wrote it."""
    if layout.config is not None:
        _text(folder, layout)


def check_values(config: Any, where: str, kind: Any = None) -> None:
    """Raises InputError unless the nesting, numbers and names of a config are within bounds.

    kind: the class of the config; its default values are within bounds.
    """
    if not isinstance(config, dict):
        raise InputError(f"{where} is {quoted(config)}, and must be an object")
    usual = _defaults(kind)
    for name, value, depth in _nodes(config):
        what = f"{where}: {quoted(name)}"
        if depth > _DEEPEST:
            raise InputError(f"{where} is nested deeper than {_DEEPEST} levels")
        if _REFUSED.fullmatch(name) or (name in ("use_pretrained_backbone", "use_timm_backbone") and value):
            raise InputError(f"{what} is refused: it makes transformers fetch or run what is not in the folder")
        if type(value) in (int, float) and (name, value) in usual:
            continue
        if type(value) is int and abs(value) > (_MOST if _COUNTS.search(name) else _LARGEST):
            raise InputError(f"{what} is {quoted(value)}, more than any model has")
        if type(value) is int and value < 0 and _SIZES.search(name):
            raise InputError(f"{what} is {value}, and must not be negative")
        if name in ("dtype", "torch_dtype") and value not in (None, *FLOAT_DTYPES):
            raise InputError(f"{what} is {quoted(value)}, and must be one of {', '.join(FLOAT_DTYPES)}")
        for pattern, (low, high) in _RANGES.items():
            if type(value) in (int, float) and pattern.search(name) and not low <= value <= high:
                raise InputError(f"{what} is {quoted(value)}, and must be from {low:g} to {high:g}")


def parsed(kind: Any, config: Mapping[str, Any]) -> Any:
    """The config of class `kind` with these values."""
    return kind.from_dict(copy.deepcopy(dict(config)))


def as_json(config: Any) -> str:
    return str(config.to_json_string())


def _entries(layout: Layout) -> tuple[Any, ...]:
    """What the quantization entry may be: as it is written now, and as earlier releases wrote it."""
    if not layout.layers or layout.version == 1:
        return (None,)
    layers = {name: (layer.kind, layer.settings) for name, layer in layout.layers.items()}
    return quantization_entry(layers, layout.version), {"quant_method": METHOD}


def _text(folder: Path, layout: Layout) -> bytes:
    """config.json, unparsed, if its checksum is the layout's."""
    try:
        text = read_bytes(folder / CONFIG, LARGEST_CONFIG)
    except InputError:
        if layout.config is None:
            raise
        text = b""
    if layout.config is None or digest(text) == layout.config:
        return text
    # If `save` was killed between moving the two files, this is the config of the old weights.
    previous = folder / STAGING / PREVIOUS
    if previous.is_file() and not previous.parent.is_symlink():
        kept = read_bytes(previous, LARGEST_CONFIG)
        if digest(kept) == layout.config:
            return kept
    raise InputError(
        f"{folder / CONFIG} was altered after it was saved (sha256 mismatch) or is missing; save the model again"
    )


def _defaults(kind: Any) -> set[tuple[str, Any]]:
    """(name, number) of every number in the default config of the class; empty if it has no default config."""
    if kind is None:
        return set()
    try:
        values = json.loads(as_json(kind()))
    except Exception:  # a config of several models needs theirs
        return set()
    return {(name, value) for name, value, _ in _nodes(values) if type(value) in (int, float)}


def _nodes(config: Mapping[str, Any]) -> Iterator[tuple[str, Any, int]]:
    """(name, value, depth) of everything inside; items of lists and of `_WORDS` have the name of their container."""
    waiting: list[tuple[str, Any, int]] = [(name, value, 1) for name, value in config.items()]
    while waiting:
        name, value, depth = waiting.pop()
        yield name, value, depth
        if depth > _DEEPEST:
            continue
        if isinstance(value, dict):
            waiting += [(name if name in _WORDS else key, item, depth + 1) for key, item in value.items()]
        elif isinstance(value, list):
            waiting += [(name, item, depth + 1) for item in value]
