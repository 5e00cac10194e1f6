"""`OnnxModel`: an exported file as a module, run by ONNX Runtime."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparseq.errors import InputError
from sparseq.reading import brief
from sparseq_kernels.torch_internals import has_vnni

from .files import SUFFIX
from .packages import needed


def is_onnx(path: str | Path) -> bool:
    """Whether a path names an ONNX file, by its suffix."""
    return Path(path).suffix == SUFFIX


class Outputs(dict[str, Tensor]):
    """The outputs of a file by name, also as attributes, like those of a transformers model."""

    def __getattr__(self, name: str) -> Tensor:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class OnnxModel(nn.Module):
    """A file that `export_onnx` wrote, on the CPU: called like the model that was exported, in as many threads as
    torch has now.

    input_names: those of the file, in order. metadata: the file's texts by name.

    Raises InputError if onnxruntime is not installed, for a file that it cannot load, and for one without sparseq's
    metadata.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        if not os.path.isfile(self.path):
            raise InputError(f"there is no file {self.path}: give one that `sparseq export` has written")
        self._session = _session(self.path)
        self.input_names: tuple[str, ...] = tuple(one.name for one in self._session.get_inputs())
        self.output_names: tuple[str, ...] = tuple(one.name for one in self._session.get_outputs())
        self.metadata: dict[str, str] = dict(self._session.get_modelmeta().custom_metadata_map)
        if "sparseq.version" not in self.metadata:
            raise InputError(f"{self.path} was not written by `sparseq export`")

    def forward(self, **inputs: Tensor) -> Outputs:
        """The outputs. inputs: all of `input_names`; others are not used. Raises InputError if one is missing, and for
        values that the model cannot read."""
        if missing := [name for name in self.input_names if name not in inputs]:
            raise InputError(f"{self.path} reads {', '.join(self.input_names)}, and {missing[0]} is not given")
        feed = {name: inputs[name].detach().cpu().numpy() for name in self.input_names}
        try:
            found = self._session.run(list(self.output_names), feed)
        except Exception as error:  # of its own kinds, for inputs of another type or beyond what the model reads
            raise InputError(f"ONNX Runtime cannot run {self.path} on these inputs ({brief(error)})") from error
        return Outputs(zip(self.output_names, map(torch.from_numpy, found), strict=True))


def _session(path: Path) -> Any:
    runtime = needed("onnxruntime", f"running {path}")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    if not has_vnni():
        # Its products of uint8 by int8 would saturate in int16: it takes exact ones then, which with VNNI are slower.
        options.add_session_config_entry("session.x64quantprecision", "1")
    try:
        return runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of its own kinds, for whatever is wrong with the file
        raise InputError(f"ONNX Runtime cannot load {path} ({brief(error)})") from error
