"""Measured configs, by GPU and Triton version: the JSON files in `sparseq_kernels/tuned`, which the tuner writes.

Nothing is ever measured when an op is called. Files are read once, and what they say is checked before it is used.
"""

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import triton

from ...errors import InputError
from .device import Device
from .gemm_config import GemmConfig

FOLDER = Path(__file__).parent.parent.parent / "tuned"
# Of configs: "int8" for `heuristics.int8_config`.
KINDS = ("int8",)
SIZES = ("M", "N", "K")
# Of M: more rows go by the config for so many.
LARGEST_BUCKET = 16384

# (kind, M's bucket, N, K)
Key = tuple[str, int, int, int]


def bucket(count: int) -> int:
    """The next power of two, at most LARGEST_BUCKET."""
    return min(1 << max(count - 1, 0).bit_length(), LARGEST_BUCKET)


def key(kind: str, M: int, N: int, K: int) -> Key:
    return kind, bucket(M), N, K


def find(kind: str, M: int, N: int, K: int, device: Device) -> GemmConfig | None:
    """The measured config for this product on this device, if there is one. InputError for a file that is malformed.

    kind: one of KINDS.
    """
    return _configs(device.name).get(key(kind, M, N, K)) if device.name else None


@functools.cache
def _configs(name: str) -> Mapping[Key, GemmConfig]:
    """All configs for the GPU of that name under this version of Triton. Of two files the one that sorts last wins."""
    found: dict[Key, GemmConfig] = {}
    for path in sorted(FOLDER.glob("*.json")):
        content = _content(path)
        if content["device"] == name and _minor(content["triton"]) == _minor(triton.__version__):
            found.update(_entry(path, number, entry) for number, entry in enumerate(content["configs"], 1))
    return found


def _minor(version: str) -> list[str]:
    """["3", "6"] of "3.6.0"."""
    return version.split(".")[:2]


def _refused(path: Path, why: str) -> InputError:
    return InputError(f"{path} {why}: delete it, or write it again with python -m tools.tune")


def _content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _refused(path, f"cannot be read as JSON ({error})") from error
    for field, kind in (("device", str), ("triton", str), ("configs", list)):
        if not isinstance(content, dict) or not isinstance(content.get(field), kind):
            raise _refused(path, f"has no {field!r}, or one that is no {kind.__name__}")
    return dict(content)


def _entry(path: Path, number: int, entry: Any) -> tuple[Key, GemmConfig]:
    if not isinstance(entry, dict) or entry.get("kind") not in KINDS:
        raise _refused(path, f"has a config, number {number}, that is of no known kind, {' or '.join(KINDS)}")
    fields = dataclasses.fields(GemmConfig)
    config = {field.name: entry.get(field.name, field.default) for field in fields}
    sizes = {name: entry.get(name) for name in SIZES}
    for name, value in (sizes | config).items():
        expected = bool if any(field.name == name and field.type is bool for field in fields) else int
        tile = name.startswith("block_") or name == "num_warps"
        if type(value) is not expected or (expected is int and (value < 1 or (tile and value & (value - 1)))):
            raise _refused(path, f"has a config, number {number}, with the {name} {entry.get(name)!r}")
    return key(entry["kind"], *(entry[name] for name in SIZES)), GemmConfig(**config)
