"""A folder that is checked and read, to be put into a model that another library has built around it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from sparseq.errors import InputError
from sparseq.nn import check_finite, named_layers
from sparseq.nn.save_pretrained import refuse_save_pretrained
from sparseq_kernels.dtypes import FLOAT_DTYPES

from .config import read_config
from .header import Header
from .layout import Layout
from .read import open_source
from .skeleton import check_state, place_layers

__all__ = ["Folder", "open_folder"]


@dataclass(frozen=True)
class Folder:
    """Its checked header and layout, and its tensors by their names in the file, in memory of their own.

    dtype: of the parameters outside sparseq's layers, as config.json says; None where it does not. unnamed: the
    sentinels by their names in the file.
    """

    path: Path
    header: Header
    layout: Layout
    tensors: Mapping[str, Tensor]
    dtype: torch.dtype | None
    unnamed: tuple[str, ...]

    def renamed(self, name_in_model: Callable[[str], str]) -> Folder:
        """The same for a model that has other names: `name_in_model` gives its name for the name of a module or tensor
        that the file has."""
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
        """Whether the tensor with this name in the model is stored with one axis more."""
        return self.layout.origin.get(name) in self.layout.guarded

    def sentinels(self) -> list[str]:
        """Names of tensors in the file that are no model's, as the file has them and as the model would."""
        return [*self.unnamed, *self.layout.sentinels]

    def aliases(self) -> list[str]:
        """Names in the model of tensors that the file holds under another name only."""
        firsts: set[str] = set()
        again = []
        for name, first in self.layout.origin.items():
            if first in firsts:
                again.append(name)
            firsts.add(first)
        return again

    def place_layers(self, model: nn.Module) -> None:
        """Exchanges the modules that the file names, as far as the model has them, for sparseq layers on the meta
        device. InputError: one of another kind or shape, or a tensor of another shape or kind of dtype."""
        layers = {name: layer for name, layer in self.layout.layers.items() if _has_module(model, name)}
        place_layers(model, replace(self.layout, layers=layers), self.path)
        check_state(model, self.layout, self.header, self.path, part=True)

    def fill(self, model: nn.Module, trainable: Mapping[str, bool]) -> None:
        """Puts the file's tensors into the model, each on the device of what it replaces; names that share a tensor
        share one Parameter. trainable: by name, whether a parameter needs a gradient (True where it says nothing).

        InputError: what is to be replaced is on the meta device; NaN or infinity in a parameter or a sparseq layer.
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
            # What a layer derives from its state follows when the state is loaded.
            layer.load_state_dict(layer.state_dict(keep_vars=True), assign=True)
        for module, key, first in buffers:
            if first in parameters:  # the bias of a packed head that is another module's too, as in `skeleton.fill`
                module._buffers[key] = parameters[first]
        refuse_save_pretrained(model)
        try:
            check_finite(model)
        except InputError as error:
            raise InputError(f"{self.path} cannot be used: {error}; save the model again") from error


def open_folder(folder: str | Path) -> Folder:
    """The folder's content. InputError: as for `load`."""
    with open_source(Path(folder)) as source:
        dtype = FLOAT_DTYPES.get(str(read_config(Path(folder), source.layout).get("dtype")))
        return Folder(source.path, source.header, source.layout, source.tensors(), dtype, source.layout.sentinels)


def _has_module(model: nn.Module, name: str) -> bool:
    with contextlib.suppress(AttributeError):
        model.get_submodule(name)
        return True
    return False
