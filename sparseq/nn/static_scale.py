"""The scale of static activations: how it is found, and whether it is set."""

import warnings
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.compiler import is_compiling

from sparseq_kernels import InputError
from sparseq_kernels.numerics import ZERO_BELOW, compute_dtype, positive, qmax
from sparseq_kernels.torch_internals import has_values, is_functorch_wrapped

from . import related
from .settings import DTYPES, QuantSettings

# How far the moving average moves towards a batch's largest magnitude; the default of torch's observers too.
AVERAGE_STEP = 0.01


class StaticScale(nn.Module):
    """A layer with an `input_scale`: [1], fp32 (fp64 with an fp64 weight); None for dynamic activations.

    It is 0 until it is set. It is a buffer that follows the activations seen in training (see `range_follows`), or a
    Parameter if it is learned. Whether it is set is read from the tensor, so a value set in any way counts.
    """

    weight: Tensor
    input_scale: Tensor | None
    settings_: QuantSettings

    # What a scale that is not learned follows in training: "max", the largest magnitude of all; "average", a moving
    # average of the batches' largest (Q8BERT, Zafrir et al. 2019); otherwise nothing, once there is a scale. No part of
    # the state: `calibrate` sets it.
    range_follows: str = "max"
    # The tensor in which a scale was found, and its version then: on a GPU, to look again would wait for the device.
    _reading: tuple[Tensor, int | None] | None = None
    # Whether `share_static_scales` was called for this layer.
    _shared: bool = False

    def _init_input_scale(self) -> None:
        unset = None
        if self.settings_.activation == "static" and self.settings_.bits is not None:
            # Not a 0-dim tensor, which FSDP cannot shard.
            unset = torch.zeros(1, dtype=compute_dtype(self.weight), device=self.weight.device)
        if unset is not None and self._learned:
            self.input_scale = nn.Parameter(unset, requires_grad=self.weight.requires_grad)
        else:
            self.register_buffer("input_scale", unset)

    @property
    def calibrated(self) -> bool:
        """Whether activations can be quantized: they are dynamic, or their scale is set.

        Waits for the device. True for a scale without a value, as on the meta device.
        """
        scale = self.input_scale
        return scale is None or not has_values(scale) or bool(scale.detach().ne(0).all())

    @property
    def _learned(self) -> bool:
        return self.settings_.scale == "lsq"

    def _forget_reading(self) -> None:
        self._reading = None

    def _static_scale(self, x: Tensor) -> Tensor | None:
        """The scale to quantize `x` with, positive; None for dynamic activations.

        In training it is first updated from `x`. Raises InputError if there is no scale and none can be found.
        """
        scale = self.input_scale
        if scale is None:
            return None
        looked_at = readable(scale)
        if self.training and self._measurable(x):
            known = self._learned and (self._found(scale) if looked_at else self._reading)
            if not known:
                return self._observe(x)
        if not looked_at:
            # Values cannot be read while tracing; at run time a missing scale gives NaN, never a wrong number.
            return torch.where(scale.detach() != 0, positive(scale), float("nan"))
        if not self._found(scale):
            raise InputError(
                "a layer with static activations has no scale yet: train it for a step or call "
                "sparseq.calibrate(model, batches) first"
            )
        return positive(scale)

    def _measurable(self, x: Any) -> bool:
        """Whether the layer accepts x; an input that it does not accept must not change its scale either."""
        there = isinstance(x, Tensor) and x.dtype in DTYPES and x.layout is torch.strided
        return there and x.device == self.weight.device and x.numel() > 0 and x.shape[-1:] == self.weight.shape[1:]

    def _found(self, scale: Tensor) -> bool:
        """Whether the scale is set; read again only if the tensor was replaced or overwritten."""
        if self._reading is not None and self._reading[0] is scale:
            # An optimizer writes a learned scale in each step: the first reading is valid until training ends.
            learning = self.training and scale.requires_grad and scale.is_cuda
            if learning or self._reading[1] == related.version_of(scale):
                return True
        found = bool(scale.detach().ne(0).all())
        self._reading = (scale, related.version_of(scale)) if found else None
        return found

    def _check_unsharded(self) -> None:
        """Raises InputError for a learned scale sharded by FSDP, which discards writes after the forward."""
        if self._learned and getattr(self, "_is_fsdp_managed_module", False):
            raise InputError(
                "a learned static scale cannot be set once FSDP shards it: call sparseq.calibrate(model, batches) "
                "before the model is wrapped"
            )

    @torch.no_grad()
    def _follow(self, x: Tensor, how: str) -> Tensor:
        """Updates the scale from the largest magnitude of x, and returns whether that is finite, as a bool tensor.

        "max" raises the scale to what the magnitude needs; "average" moves it a step towards that; anything else
        changes it only if it is not set. NaN and Inf do not change it.
        """
        self._check_unsharded()
        scale = self.input_scale
        assert scale is not None
        needed = x.detach().abs().amax().to(scale.dtype) / qmax(self.settings_.input_bits)
        finite = torch.isfinite(needed)
        found = needed.clamp_min(ZERO_BELOW)
        moved = scale
        if how == "max":
            moved = torch.maximum(scale, found)
        elif how == "average":
            moved = scale + AVERAGE_STEP * (found - scale)
        scale.copy_(torch.where(finite, torch.where(scale == 0, found, moved), scale))
        return finite

    @torch.no_grad()
    def _set_range(self, largest: Tensor) -> None:
        """Sets the scale for which the range ends at `largest`."""
        assert self.input_scale is not None
        scale = largest.to(self.input_scale) / qmax(self.settings_.input_bits)
        self.input_scale.copy_(scale.clamp_min(ZERO_BELOW))

    def _observe(self, x: Tensor) -> Tensor:
        """Updates the scale from the input of a training step, and returns it."""
        if not self._shared and not is_compiling():
            _warn_of_other_processes()
        finite = self._follow(x, "" if self._learned else self.range_follows)
        assert self.input_scale is not None
        # No error here, as it would wait for the device: the loss of a bad batch is NaN, and the scale is unchanged.
        return torch.where(finite, positive(self.input_scale), float("nan"))


def readable(scale: Tensor) -> bool:
    """Whether the value of the scale can be read: not while a graph is traced, and not for tensors of torch.func."""
    if is_compiling() or type(scale) not in (Tensor, nn.Parameter) or scale.is_meta:
        return False
    return not is_functorch_wrapped(scale)


_warned = False


def _warn_of_other_processes() -> None:
    global _warned
    if not _warned and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        _warned = True
        warnings.warn(
            "static activation scales follow the rows that each process sees, and differ between processes: call "
            "sparseq.nn.share_static_scales(model) before training and after every step, in every process",
            stacklevel=5,
        )
