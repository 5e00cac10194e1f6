"""A folder that was checked and read, to be loaded into a model that another library has built."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from sparseq.errors import InputError
from sparseq.nn import check_finite, named_layers
from sparseq.nn.fused import fuse
from sparseq.nn.inference_mode import outside_inference_mode
from sparseq.nn.save_pretrained import attach_quantizer
from sparseq_kernels.dtypes import FLOAT_DTYPES

from .config import read_config
from .header import Header
from .layout import Layout
from .read import open_source
from .skeleton import check_state, place_layers

__all__ = ["Folder", "open_folder"]


@dataclass(frozen=True)
class Folder:
    """A folder's checked header and layout, and its tensors by their names in the file, in their own memory.

    dtype: of the parameters outside sparseq's layers, as config.json says; None if it does not. unnamed: the sentinels
    by their names in the file.
    """

    path: Path
    header: Header
    layout: Layout
    tensors: Mapping[str, Tensor]
    dtype: torch.dtype | None
    unnamed: tuple[str, ...]

    def renamed(self, name_in_model: Callable[[str], str]) -> Folder:
        """The same for a model with other names.

        name_in_model: the name in the model of a module or tensor in the file.
        """
        layout = self.layout
        return replace(
            self,
            layout=replace(
                layout,
                layers={name_in_model(name): layer for name, layer in layout.layers.items()},
                origin={name_in_model(name): first for name, first in layout.origin.items()},
                sentinels=tuple(map(name_in_model, layout.sentinels)),
            ),
        )

    def is_guarded(self, name: str) -> bool:
        """Whether the tensor with this name in the model is stored with one more axis."""
        return self.layout.origin.get(name) in self.layout.guarded

    def sentinels(self) -> list[str]:
        """Names of the sentinel tensors, as in the file and as in the model; they are not part of the model."""
        return [*self.unnamed, *self.layout.sentinels]

    def aliases(self) -> list[str]:
        """Names in the model of tensors that are stored under another name only."""
        firsts: set[str] = set()
        again = []
        for name, first in self.layout.origin.items():
            if first in firsts:
                again.append(name)
            firsts.add(first)
        return again

    def place_layers(self, model: nn.Module) -> None:
        """Replaces the modules that the file names, if the model has them, by sparseq layers on the meta device.

        Raises InputError for a module of another kind or shape, and for a tensor of another shape or kind of dtype.
        """
        layers = {name: layer for name, layer in self.layout.layers.items() if _has_module(model, name)}
        place_layers(model, replace(self.layout, layers=layers), self.path)
        check_state(model, self.layout, self.header, self.path, part=True)

    @outside_inference_mode
    def fill(self, model: nn.Module, trainable: Mapping[str, bool]) -> None:
        """Puts the file's tensors into the model, each on the device of the tensor it replaces.

        Shared tensors stay shared. trainable: by name, whether a parameter requires a gradient (True if not given).
        Raises InputError if a tensor to replace is on the meta device, and for NaN or infinity in a parameter or a
        sparseq layer.
        """
        parameters: dict[str, nn.Parameter] = {}
        buffers = []
        for name, old in model.state_dict(keep_vars=True).items():
            first = self.layout.origin.get(name)
            if first is None:
                continue
            if old.is_meta:
                raise InputError(f"{name} is on the meta device: load the model onto the CPU or a GPU")
            parent, _, key = name.rpartition(".")
            module = model.get_submodule(parent)
            tensor = self.tensors[first].to(old.device)
            if key in module._parameters:
                wanted = nn.Parameter(tensor, trainable.get(name, True))
                module._parameters[key] = parameters.setdefault(first, wanted)
            else:
                module._buffers[key] = tensor
                buffers.append((module, key, first))
        for _, layer in named_layers(model):
            # Loading the state updates what a layer derives from it.
            layer.load_state_dict(layer.state_dict(keep_vars=True), assign=True)
        for module, key, first in buffers:
            if first in parameters:  # a bias shared by a packed head and another module, as in `skeleton.fill`
                module._buffers[key] = parameters[first]
        fuse(attach_quantizer(model))
        try:
            check_finite(model)
        except InputError as error:
            raise InputError(f"{self.path} cannot be used: {error}; save the model again") from error


@outside_inference_mode
def open_folder(folder: str | Path) -> Folder:
    """Opens a folder. Raises InputError like `load`."""
    with open_source(Path(folder)) as source:
        dtype = FLOAT_DTYPES.get(str(read_config(Path(folder), source.layout).get("dtype")))
        return Folder(source.path, source.header, source.layout, source.tensors(), dtype, source.layout.sentinels)


def _has_module(model: nn.Module, name: str) -> bool:
    with contextlib.suppress(AttributeError):
        model.get_submodule(name)
        return True
    return False
