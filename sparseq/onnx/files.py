"""Writing an ONNX file and what belongs beside it: checked first, and each file completely or not at all."""

import copy
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from sparseq.checkpoint import CONFIG
from sparseq.checkpoint.names import QUANTIZATION
from sparseq.errors import InputError
from sparseq.failures import writing
from sparseq.reading import brief

from .packages import needed

SUFFIX = ".onnx"


def check_path(path: Path) -> Path:
    """The path. Raises InputError if no ONNX file can be written there."""
    if path.suffix != SUFFIX:
        raise InputError(f"cannot export to {path}: give a file that ends in {SUFFIX}")
    if os.path.isdir(path):
        raise InputError(f"cannot export to {path}: it is a folder, and a file is needed")
    place = path.parent
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not os.path.isdir(place):
        raise InputError(f"cannot export to {path}: {place} is no folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"cannot export to {path}: the folder {place} is not writable")
    return path


def files_beside(path: Path, model: nn.Module, tokenizer: Any) -> dict[str, bytes]:
    """The content of the files that belong beside an exported one, by name: config.json, if the model has a config, and
    the tokenizer's. Raises InputError if files of another model are there."""
    with tempfile.TemporaryDirectory() as made:
        if tokenizer is not None:
            tokenizer.save_pretrained(made)
        found = {file.name: file.read_bytes() for file in sorted(Path(made).iterdir()) if file.is_file()}
    if hasattr(model, "config") and hasattr(model.config, "to_json_string"):
        found[CONFIG] = _config_text(model).encode()
    for name, content in found.items():
        there = path.parent / name
        if os.path.lexists(there) and not (os.path.isfile(there) and there.read_bytes() == content):
            raise InputError(f"{path.parent} already holds another {name}: give the exported model a new folder")
    return found


def write_model(graph: Any, path: Path, metadata: Mapping[str, str], beside: Mapping[str, bytes]) -> Path:
    """Writes an onnx.ModelProto and the files beside it, those first; returns the path.

    Raises InputError for a graph that onnx's checker does not accept; nothing is written then. Raises MachineError if
    a file cannot be written.
    """
    onnx = needed("onnx", "export_onnx")
    onnx.helper.set_model_props(graph, dict(metadata))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as made:
            staging = Path(made)
            onnx.save_model(graph, staging / path.name)
            try:
                onnx.checker.check_model(str(staging / path.name), full_check=True)
            except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
                raise InputError(f"the exported graph is not valid ONNX ({brief(error)})") from error
            for name, content in beside.items():
                (staging / name).write_bytes(content)
            for name in [*beside, path.name]:
                with (staging / name).open("rb") as written:
                    os.fsync(written.fileno())
                os.replace(staging / name, path.parent / name)
    return path


def _config_text(model: nn.Module) -> str:
    """config.json without the entry that has transformers load sparseq's own files."""
    config: Any = copy.deepcopy(model.config)
    if hasattr(config, QUANTIZATION):
        delattr(config, QUANTIZATION)
    config.architectures = [type(model).__name__]
    text: str = config.to_json_string()
    return text
