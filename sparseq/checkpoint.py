"""Model folders: one checked `model.safetensors` (any mix of plain, training and packed layers), config and tokenizer.

The file's metadata holds what is needed to rebuild the model around the tensors: the class and settings of every
sparseq layer, the names under which a shared tensor appears again, the model's class, and a sha256 over all of that and
every tensor's bytes. Nothing is unpickled.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sparseq.errors import InputError
from sparseq.nn import LAYERS

__all__ = [
    "CONFIG",
    "WEIGHTS",
    "Contents",
    "contents",
    "is_saved",
    "layer_names",
    "load",
    "read_metadata",
    "save",
    "verify",
]

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
STAGING = ".saving"
FORMAT_VERSION = 1
KEY = "sparseq"
CHECKSUM = "sha256"


@dataclass(frozen=True)
class Contents:
    """What `save` writes of a model.

    tensors: state-dict name -> tensor, each shared tensor once, under its first name. aliases: every further name of
    a shared tensor -> its first. layers: module name -> {"class", "settings"} of the sparseq layers. architecture: the
    class of a transformers model.
    """

    tensors: dict[str, Tensor]
    aliases: dict[str, str]
    layers: dict[str, dict[str, Any]]
    architecture: str | None

    def metadata(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The file's metadata but for the checksum; "format" lets transformers read a plain model from it too."""
        layout = {
            "version": FORMAT_VERSION,
            "architecture": self.architecture,
            "aliases": self.aliases,
            "layers": self.layers,
        }
        return {**(extra or {}), "format": "pt", KEY: json.dumps(layout, sort_keys=True, separators=(",", ":"))}


def contents(model: nn.Module) -> Contents:
    """What `save(model)` would write, tensors not copied; a model on the meta device will do.

    InputError: a subclass of a sparseq layer, or state that is not a tensor.
    """
    tensors: dict[str, Tensor] = {}
    aliases: dict[str, str] = {}
    first_names: dict[Any, str] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not isinstance(tensor, Tensor):
            raise InputError(f"{name} in the model's state is a {type(tensor).__name__}; only tensors can be saved")
        first = first_names.setdefault(_identity(tensor), name)
        if first == name:
            tensors[name] = tensor.detach()
        else:
            aliases[name] = first
    layers = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, tuple(LAYERS.values())):
            kind = type(module).__name__
            if LAYERS.get(kind) is not type(module):
                raise InputError(f"{name} is a {kind}, a subclass that a file cannot name; use {', '.join(LAYERS)}")
            layers[name] = {"class": kind, "settings": module.settings()}  # type: ignore[operator]
    architecture = type(model).__name__ if _has_config(model) else None
    return Contents(tensors, aliases, layers, architecture)


def save(
    model: nn.Module, folder: str | Path, tokenizer: Any = None, *, metadata: Mapping[str, str] | None = None
) -> Path:
    """Writes `model.safetensors`, with a transformers model also `config.json`, and the tokenizer; returns the file.

    Everything is first written whole into a sub-folder, then moved into place, the weights last: killed at any moment,
    a new folder holds a whole model or none, an old one whole weights, the old or the new. One writer at a time.
    metadata: extra text entries for the file's header. InputError: `folder` is a file, or see `contents`.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"cannot save into {folder}: it is a file, and a folder is needed")
    held = contents(model)
    if empty := [name for name, tensor in held.tensors.items() if tensor.is_meta]:
        raise InputError(f"{empty[0]} is on the meta device and has no values to save; load the model first")
    staging = folder / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        tensors = _independent(held.tensors)
        header = held.metadata(metadata)
        header.pop(CHECKSUM, None)
        header[CHECKSUM] = _checksum(header, sorted(tensors.items()))
        save_file(tensors, staging / WEIGHTS, header)
        if _has_config(model):
            config: Any = copy.deepcopy(model.config)
            config.architectures = [held.architecture]
            config.dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), config.dtype)
            config.save_pretrained(staging)
        if tokenizer is not None:
            tokenizer.save_pretrained(staging)
        files = sorted((file for file in staging.iterdir() if file.is_file()), key=lambda file: file.name == WEIGHTS)
        for file in files:
            _flush(file)
        for file in files:
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder / WEIGHTS


def load(folder: str | Path, model: nn.Module | None = None) -> nn.Module:
    """The model that `save` wrote into `folder`, exact to the bit, on the CPU, in eval mode.

    Without `model` it is rebuilt from `config.json` by transformers; `model` is a skeleton with the same module names
    (its plain layers are exchanged for the saved ones, its tensors replaced), changed in place and returned (after
    an error it is of no more use).
    InputError: folder or file missing, truncated, altered or not written by `save`; a skeleton that does not fit; NaN
    or infinity in a tensor (named).
    """
    folder = Path(folder)
    path = folder / WEIGHTS
    tensors, layout = _read(folder)
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(f"{name} in {path} holds NaN or infinity; this model cannot be used")
    if model is None:
        model = _build(folder, layout)
    model = _place_layers(model, layout["layers"], path)
    _fill(model, tensors, layout["aliases"], path)
    return model.eval()


def verify(folder: str | Path) -> None:
    """InputError unless the folder's `model.safetensors` is whole and unaltered since `save` wrote it."""
    _read(Path(folder))


def is_saved(folder: str | Path) -> bool:
    """Whether the folder's weights were written by `save`, going by the header alone."""
    with contextlib.suppress(InputError):
        return KEY in read_metadata(folder)
    return False


def layer_names(folder: str | Path) -> tuple[str, ...]:
    """Names of the sparseq layers in a saved folder; empty for a plain model. InputError as for `load`."""
    return tuple(_layout(read_metadata(folder), Path(folder) / WEIGHTS)["layers"])


def read_metadata(folder: str | Path) -> dict[str, str]:
    """The text entries of the header, unchecked. InputError: no such folder or file, or it is damaged."""
    with _opened(Path(folder)) as file:
        return dict(file.metadata() or {})


def _read(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(tensors in memory of their own, layout) of a file whose checksum holds."""
    with _opened(folder) as file:
        metadata = dict(file.metadata() or {})
        layout = _layout(metadata, folder / WEIGHTS)
        tensors: dict[str, Tensor] = {}

        def reading() -> Iterator[tuple[str, Tensor]]:
            for name in sorted(file.keys()):
                # a copy: the file's own tensors may be unaligned views of a mapping that lives as long as the model
                tensors[name] = file.get_tensor(name).clone()
                yield name, tensors[name]

        stated = metadata.pop(CHECKSUM, None)
        if _checksum(metadata, reading()) != stated:
            raise InputError(
                f"{folder / WEIGHTS} was altered after it was saved (sha256 mismatch); save or copy it again"
            )
    return tensors, layout


@contextlib.contextmanager
def _opened(folder: Path) -> Iterator[Any]:
    path = folder / WEIGHTS
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; give one that sparseq.save or `sparseq compress` wrote")
    if not path.is_file():
        raise InputError(f"{folder} holds no {WEIGHTS}; give a folder that sparseq.save or `sparseq compress` wrote")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, UnicodeError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:100]
        raise InputError(f"{path} is truncated or damaged ({reason}); save or copy it again") from error


def _layout(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    if KEY not in metadata:
        raise InputError(f"{path} was not written by sparseq.save; load it with the library that wrote it")
    try:
        layout = dict(json.loads(metadata[KEY]))
        version, *_ = (layout[key] for key in ("version", "architecture", "aliases", "layers"))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} was altered after it was saved: its layout cannot be read; save it again") from error
    if version != FORMAT_VERSION:
        raise InputError(f"{path} has format version {version}, this sparseq reads {FORMAT_VERSION}; update sparseq")
    return layout


def _build(folder: Path, layout: Mapping[str, Any]) -> nn.Module:
    """The untrained model around the tensors, from `config.json`; parameters are allocated, not initialised."""
    if "" in layout["layers"]:
        return nn.Identity()  # the model is one sparseq layer, and `_place_layers` puts it here
    architecture = layout["architecture"]
    if architecture is None or not (folder / CONFIG).is_file():
        raise InputError(f"{folder} does not say how to rebuild its model (no {CONFIG}); pass load() the model to fill")
    try:
        import transformers
        from transformers.initialization import no_init_weights
    except ImportError as error:
        raise InputError(f"loading {folder} needs transformers: pip install 'sparseq[train]'") from error
    kind: Any = getattr(transformers, architecture, None)
    if kind is None:
        raise InputError(
            f"transformers {transformers.__version__} has no {architecture}; pass load() the model to fill"
        )
    try:
        config = kind.config_class.from_dict(json.loads((folder / CONFIG).read_text(encoding="utf-8")))
        # On the CPU, not the meta device: non-persistent buffers (position ids) get their values, and pages of
        # parameters that nothing touches cost nothing.
        with no_init_weights():
            model: nn.Module = kind(config)
    except Exception as error:  # whatever transformers raises for it, the file is at fault
        raise InputError(f"{folder / CONFIG} cannot be read as {architecture}'s; save the model again") from error
    return model


def _place_layers(model: nn.Module, layers: Mapping[str, Mapping[str, Any]], path: Path) -> nn.Module:
    """Exchanges the named modules for sparseq layers; returns the model, which is a new one if it is itself a layer."""
    made: dict[int, nn.Module] = {}
    for name, entry in layers.items():
        parent, _, attribute = name.rpartition(".")
        try:
            old = model.get_submodule(name)
        except AttributeError as error:
            raise InputError(f"the model has no module {name}, which {path} holds; pass a fitting model") from error
        if entry["class"] not in LAYERS:
            raise InputError(f"{path} holds a layer of class {entry['class']}, unknown here; update sparseq")
        if id(old) not in made:
            kind: Any = LAYERS[entry["class"]]
            with torch.device("meta"):  # all that it holds comes from the file
                made[id(old)] = kind.from_settings(entry["settings"])
        layer = made[id(old)]
        if not name:
            return layer
        setattr(model.get_submodule(parent), attribute, layer)
    return model


def _fill(model: nn.Module, tensors: Mapping[str, Tensor], aliases: Mapping[str, str], path: Path) -> None:
    """Puts the tensors into the model without a copy; names that share a tensor share one Parameter again."""
    expected = model.state_dict(keep_vars=True)
    origin = {**{name: name for name in tensors}, **aliases}
    for name, wanted in expected.items():
        if name not in origin:
            raise InputError(f"{path} does not hold {name}, which the model needs; pass a fitting model")
        found = tensors[origin[name]]
        if found.shape != wanted.shape:
            raise InputError(
                f"{name} has shape {tuple(found.shape)} in {path}, but {tuple(wanted.shape)} in the model; "
                "pass a fitting model or mend config.json"
            )
    if unknown := sorted(set(origin) - set(expected)):
        raise InputError(f"{path} holds {unknown[0]}, which the model does not have; pass a fitting model")
    parameters: dict[str, nn.Parameter] = {}
    state: dict[str, Tensor] = {}
    for name, wanted in expected.items():
        first = origin[name]
        state[name] = tensors[first]
        if isinstance(wanted, nn.Parameter):
            state[name] = parameters.setdefault(first, nn.Parameter(tensors[first], wanted.requires_grad))
    model.load_state_dict(state, assign=True)


def _has_config(model: nn.Module) -> bool:
    config = getattr(model, "config", None)
    return hasattr(config, "model_type") and hasattr(config, "save_pretrained")


def _identity(tensor: Tensor) -> Any:
    """Equal for two names of the same memory seen the same way (tied parameters), and for nothing else."""
    if tensor.device.type == "meta" or tensor.numel() == 0:
        return id(tensor)
    return tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride()


def _independent(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous CPU tensors, no two in one storage (safetensors refuses those), copied only where need be."""
    result: dict[str, Tensor] = {}
    storages: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.cpu().contiguous()
        if tensor.untyped_storage().data_ptr() in storages and tensor.numel():
            tensor = tensor.clone()
        storages.add(tensor.untyped_storage().data_ptr())
        result[name] = tensor
    return result


def _checksum(metadata: Mapping[str, str], tensors: Iterable[tuple[str, Tensor]]) -> str:
    """Hex sha256 over the metadata and every tensor's name, dtype, shape and bytes; `tensors` come sorted by name."""
    digest = hashlib.sha256(json.dumps(dict(metadata), sort_keys=True).encode())
    for name, tensor in tensors:
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
