"""What the inference layers have in common: they hold what is stored, and nothing else that lasts."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from sparseq_kernels import InputError
from sparseq_kernels.dtypes import FLOAT_DTYPES
from sparseq_kernels.formats import FLOAT_BITS, TensorSpec, WeightFormat, empty_weight, weight_of
from sparseq_kernels.torch_internals import has_values

from . import stored
from .carried import carry
from .deprecated import renamed_method, warn_renamed
from .derived import PLAIN, Derived
from .inference_mode import normal
from .masking import WeightCounts
from .packers import pack_layer
from .scripting import refuse_torchscript

# The buffer with the expanded copy.
EXPANDED = "_expanded_values"


class Packed(nn.Module):
    """A weight as stored, in buffers `values`, `bitmap` or `indices` (if sparse) and `scale` (if quantized).

    `dtype` is that of the layer's `weight`, bias and unquantized values; `.to`, `.half` and the like change it, and
    leave integers and scales as they are (int8 or so, and fp32).

    A sparse or 4-bit weight is expanded to one integer a weight when it is packed, loaded, moved or copied, and the
    expanded copy, which is not saved, is what the CPU multiplies by. Where the stored tensors are others or have
    changed since, as under `torch.func.functional_call` or accelerate's offload of buffers, each call expands what is
    there; `expand()` makes the copy anew. Changes that torch does not count, as by `values.data.copy_()`, ask for it,
    and so do changes in place before a compiled or exported graph of the layer runs.
    """

    values: Tensor
    scale: Tensor | None
    dtype: torch.dtype
    # The op that multiplies by what is stored.
    _op: Callable[..., Tensor] | None = None
    # How often `expand` was called: what others made of the tensors is of that one.
    _expansions: int = 0

    def _hold(self, weight: WeightFormat, scale: Tensor | None, dtype: torch.dtype) -> None:
        self._layout = weight.layout()
        self.dtype = dtype
        self._derived: Derived | None = None
        self._names = tuple(weight.tensors())
        self._is_dense = weight.is_dense
        self._expands = self.is_expanded
        for name, tensor in weight.tensors().items():
            self.register_buffer(name, normal(tensor))
        self.register_buffer("scale", None if scale is None else normal(scale))

    @classmethod
    def from_layer(cls, layer: nn.Module, format: str | None = None) -> nn.Module:
        """Deprecated: use `layer.pack(format)`."""
        warn_renamed(f"{cls.__name__}.from_layer", "the training layer's method pack")
        return pack_layer(layer, format)

    def __prepare_scriptable__(self) -> nn.Module:
        refuse_torchscript(self)

    def stored_weight(self) -> WeightFormat:
        """The weight's format, around this module's own buffers."""
        return weight_of(self._layout, dict(zip(self._names, self._sources(), strict=True)))

    def _sources(self) -> tuple[Tensor, ...]:
        own = self._buffers
        # One that was made a Parameter is no buffer any more.
        return tuple([own[name] if name in own else getattr(self, name) for name in self._names])  # type: ignore[misc]

    @property
    def bits(self) -> int:
        return int(self._layout["bits"])

    @property
    def format(self) -> str:
        return str(self._layout["format"])

    @property
    def is_expanded(self) -> bool:
        """Whether arithmetic runs on an expanded copy, because what is stored is not one integer or float a weight."""
        return not self._is_dense

    @property
    def _expanded(self) -> Tensor | None:
        return self._buffers.get(EXPANDED)

    @property
    def weight(self) -> Tensor:
        """The dequantized matrix in the layer's dtype, made anew each time: for inspection, not for arithmetic."""
        return self._dequantized(torch.float64 if self.dtype == torch.float64 else torch.float32).to(self.dtype)

    def _dequantized(self, dtype: torch.dtype) -> Tensor:
        """Quantized values times scales, multiplied in this dtype; floats as they are where nothing is quantized."""
        values = self.quantized_values()
        return values if self.scale is None else values.to(dtype) * self.scale.to(dtype).unsqueeze(-1)

    def quantized_values(self) -> Tensor:
        """The weight before it is scaled, [rows, columns]: int8, int16, or floats where nothing is quantized. Zeros
        where it is masked."""
        sources = self._sources()
        if not self.is_expanded:
            return sources[0]
        expanded = self._expanded
        # The copy has no part in autograd: a gradient by the stored floats goes through an expansion of its own.
        if expanded is not None and self._is_current(sources) and not sources[0].requires_grad:
            return expanded
        return self._expand_now()

    levels = renamed_method("levels", "quantized_values")

    def _expand_now(self) -> Tensor:
        weight = self.stored_weight()
        if has_values(weight.values):
            weight.validate()
        return weight.to_dense()

    def _is_current(self, sources: tuple[Tensor, ...]) -> bool:
        """Whether what was made of the stored tensors is still what they say."""
        # With a trace's or a replica's tensors, what was made of them has been exchanged, too.
        if type(sources[0]) not in PLAIN or getattr(self, "_is_replica", False):
            return True
        return self._derived is not None and self._derived.holds(sources)

    def expand(self) -> None:
        """Checks the stored weight and makes the copy that arithmetic runs on. InputError if it is inconsistent."""
        self.check()
        self._replace_expanded(self.is_expanded and not self.values.is_meta)

    def check(self) -> None:
        """Raises InputError unless the stored tensors are consistent, and scales finite and positive."""
        if not has_values(self.values):
            return
        self.stored_weight().validate()
        for name in ("scale", "input_scale"):
            scale = self._buffers.get(name)
            if scale is not None and not bool(((scale > 0) & torch.isfinite(scale)).all()):
                raise InputError(f"a packed layer's {name} holds values that are not finite and positive")

    def _replace_expanded(self, wanted: bool) -> None:
        self._expansions += 1
        if EXPANDED in self._buffers:
            delattr(self, EXPANDED)
        # Not in inference mode, whose tensors could have no part in autograd later.
        with torch.inference_mode(False):
            if wanted:
                self.register_buffer(EXPANDED, self.stored_weight().to_dense(), persistent=False)
            self._note_sources()
        # torch.export miscounts the buffers that follow an empty one.
        for name in [name for name, buffer in self._buffers.items() if buffer is None]:
            self._buffers[name] = self._buffers.pop(name)

    def _note_sources(self) -> None:
        """What was made of the stored tensors, if anything was, was made of them as they are now."""
        self._derived = Derived.of(self._sources()) if self._non_persistent_buffers_set or self._op else None

    def weight_counts(self) -> WeightCounts:
        rows, columns = self._layout["shape"]
        return WeightCounts(rows * columns, self.stored_weight().kept(), self.bits)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Packed":
        with torch.inference_mode(False):
            like = fn(torch.empty(0, dtype=self.dtype, device=self.values.device))
            dtype = like.dtype
            if dtype not in FLOAT_DTYPES.values():
                raise InputError(f"a packed layer cannot be cast to {dtype}: use one of {', '.join(FLOAT_DTYPES)}")
            # Without what was made of buffers that have changed since, or that get their values only later.
            current = self._derived is not None and self._derived.holds(self._sources())
            current = current and not (self.values.is_meta and like.device.type != "meta")
            if not current and EXPANDED in self._buffers and type(self.values) in PLAIN:
                delattr(self, EXPANDED)
            casts = {id(self._buffers.get("bias"))} | ({id(self.values)} if self.bits == FLOAT_BITS else set())
            if self.bits == FLOAT_BITS:
                casts.add(id(self._expanded))
            super()._apply(lambda tensor: carry(tensor, fn, id(tensor) not in casts), recurse)
        self.dtype = dtype
        if current:
            self._note_sources()
        return self

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        sentinel = state_dict.get(prefix + "weight")
        if isinstance(sentinel, Tensor) and not sentinel.numel():
            del state_dict[prefix + "weight"]  # `sparseq.save` writes it for readers that expect a weight
        for name in (*self._names, "scale", "input_scale"):
            self._check_dtype(name, state_dict.get(prefix + name))
        errors: list[str] = args[-1]
        known = len(errors)
        super()._load_from_state_dict(state_dict, prefix, *args)
        if len(errors) > known:
            return  # torch raises for them, of tensors that do not fit
        self._make_normal()
        if self.bits == FLOAT_BITS:
            self.dtype = self.values.dtype
        if any(prefix + name in state_dict for name in self._buffers):
            self.expand()

    def _make_normal(self) -> None:
        """Has scales in fp32, and no tensor of inference mode, after buffers were exchanged from without."""
        for name, buffer in self._buffers.items():
            if buffer is not None:
                kept = name in ("scale", "input_scale")
                self._buffers[name] = normal(buffer.to(torch.float32) if kept else buffer)

    def _check_dtype(self, name: str, loaded: Any) -> None:
        own = self._buffers.get(name)
        if isinstance(loaded, Tensor) and own is not None:
            floats = own.is_floating_point() and loaded.dtype in FLOAT_DTYPES.values()
            if loaded.dtype != own.dtype and not floats:
                raise InputError(
                    f"{name} is {loaded.dtype} in the state, and {own.dtype} in this layer: a packed layer loads the "
                    "state of one with the same settings"
                )

    def __getstate__(self) -> dict[str, Any]:
        # What was made of the stored tensors is made again in the copy.
        made = self._non_persistent_buffers_set
        buffers = {name: buffer for name, buffer in self._buffers.items() if name not in made}
        return self.__dict__ | {"_buffers": buffers, "_non_persistent_buffers_set": set(), "_derived": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._make_normal()
        self.expand()

    @classmethod
    def check_settings(cls, settings: object, where: str) -> None:
        """Raises InputError unless `settings`, as read from a file, are such as `settings()` gives."""
        stored.check_settings(cls.__name__, settings, where)

    @classmethod
    def tensor_specs(cls, settings: dict[str, Any]) -> dict[str, TensorSpec]:
        """Every tensor in the state of the layer that these settings describe, by its name there."""
        return stored.tensor_specs(cls.__name__, settings)

    @classmethod
    def _empty(cls, settings: dict[str, Any]) -> tuple[WeightFormat, Tensor | None, torch.dtype]:
        """(weight, scale, dtype) of a layer whose contents are still to be loaded. InputError for other settings."""
        cls.check_settings(settings, f"settings of a {cls.__name__}")
        dtype = FLOAT_DTYPES[settings["dtype"]]
        weight = empty_weight(settings["weight"], dtype)
        rows = settings["weight"]["shape"][0]
        return weight, None if weight.bits == FLOAT_BITS else new_scale(rows), dtype


def new_scale(count: int) -> Tensor:
    """fp32 ones on the default device, to be loaded."""
    return torch.ones(count, dtype=torch.float32, device=torch.get_default_device())
