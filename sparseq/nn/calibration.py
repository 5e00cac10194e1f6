"""Scales of static activations: found from batches, and shared between processes."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sparseq_kernels import InputError

from .linear import QuantSparseLinear
from .ranges import METHODS, PERCENTILE, make_range
from .selection import choice


def calibrate(
    model: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    *,
    method: str = "max",
    percentile: float = PERCENTILE,
    share: bool = True,
) -> nn.Module:
    """Sets the scales of static activations from batches, and returns the model.

    batches: keyword arguments of the model's forward. Each layer's scale is set from the values that reach it; scales
    set earlier are discarded.

    method: how a layer's range is found, and how it changes when the model is trained further:

    - "max": the largest magnitude of all batches; training can raise it. A single outlier widens it permanently.
    - "average": the mean over batches of each batch's largest magnitude; in training, a moving average that goes a
      hundredth of the way to each batch's largest magnitude (Q8BERT, Zafrir et al. 2019).
    - "percentile": the magnitude that `percentile` percent of the magnitudes above 0 do not exceed (Wu et al. 2020);
      training does not change it.
    - "mse": the range with the least expected squared error of quantization, so that an outlier widens it only if it
      outweighs the rest; training does not change it.

    Magnitudes beyond the range are clipped. Learned scales (`scale="lsq"`) start from this range and are trained.

    share: if a process group is initialized, every process uses the largest scale that any of them found; all of them
    must call this function. False uses the batches of this process alone.

    Raises InputError, naming the layer and the batch, for NaN or Inf in activations, and if there are no batches; the
    scales then keep their earlier values. Also raises InputError for learned scales sharded by FSDP: calibrate before
    wrapping.
    """
    choice("method", method, METHODS)
    if not 0 < percentile <= 100:
        raise InputError(f"percentile is {percentile}: it must be above 0 and at most 100")
    layers = _static_layers(model)
    if not layers:
        return model
    for layer in layers.values():
        layer._check_unsharded()
    ranges = {name: made for name in layers if (made := make_range(method, percentile)) is not None}
    before = {name: layer.input_scale.detach().clone() for name, layer in layers.items()}  # type: ignore[union-attr]
    seen: dict[str, Tensor] = {}
    reached: set[str] = set()

    def observe(name: str) -> Any:
        def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            assert isinstance(layer, QuantSparseLinear)
            x = args[0] if args else kwargs["input"]
            if layer._measurable(x):
                finite = layer._follow(x, "max")  # the input of later layers is quantized with the scale found so far
                seen[name] = finite & seen[name] if name in seen else finite
                reached.add(name)
                if name in ranges:
                    ranges[name].observe(x)

        return hook

    hooks = [layer.register_forward_pre_hook(observe(name), with_kwargs=True) for name, layer in layers.items()]
    modes = [layer.training for layer in layers.values()]
    number = -1
    try:
        with torch.no_grad():
            for layer in layers.values():
                layer.input_scale.zero_()  # type: ignore[union-attr]
            for number, batch in enumerate(batches):
                seen.clear()
                try:
                    model(**batch)
                finally:  # checked first: a layer that finds no scale in a bad batch has a less helpful message
                    _check_batch(seen, number)
        if number < 0:
            raise InputError("there are no batches to calibrate with: give one at least (an iterator is used up once)")
        for name in ranges.keys() & reached:
            layers[name]._set_range(ranges[name].largest(layers[name].settings_.input_bits))
        for layer in layers.values():
            layer.range_follows = method
    except BaseException:
        with torch.no_grad():
            for name, layer in layers.items():
                layer.input_scale.copy_(before[name])  # type: ignore[union-attr]
        raise
    finally:
        for hook, layer, mode in zip(hooks, layers.values(), modes, strict=True):
            hook.remove()
            layer.training = mode
    if share:
        share_static_scales(model)
    return model


def _check_batch(seen: Mapping[str, Tensor], number: int) -> None:
    """Raises InputError for the first layer, in execution order, whose input has NaN or Inf in this batch."""
    if seen and not torch.stack([finite.reshape(()).cpu() for finite in seen.values()]).all():
        name = next(name for name, finite in seen.items() if not finite)
        raise InputError(
            f"calibration batch {number} (the first is 0) has NaN or Inf in the input of layer {name!r}, which "
            "gives no scale: leave that batch out, or mend what comes before the layer"
        )


@torch.no_grad()
def share_static_scales(model: nn.Module, group: Any = None) -> nn.Module:
    """Sets each static activation scale to the largest value that any process of `group` has; returns the model.

    group: None means all processes. Does nothing if no process group is initialized.

    Static scales follow the rows that a process sees, and DistributedDataParallel does not average them. Call this
    function in every process before training and after each optimizer step. It is one all_reduce of one value per
    layer, and waits for the other processes. `calibrate` and the trainer call it themselves.
    """
    layers = list(_static_layers(model).values())
    if not layers or not (dist.is_available() and dist.is_initialized()):
        return model
    for layer in layers:
        layer._shared = True
    place = next((s.device for layer in layers if (s := layer.input_scale) is not None), torch.device("cpu"))
    # A shard can be empty in one process and not in another, so every process sends a value for every layer.
    largest = torch.full((len(layers),), float("-inf"), dtype=torch.float32, device=place)
    held = [(i, s) for i, layer in enumerate(layers) if (s := layer.input_scale) is not None and s.numel() == 1]
    for i, scale in held:
        largest[i] = scale.reshape(()).to(place)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX, group=group)
    for i, scale in held:
        scale.copy_(largest[i])
    return model


def _static_layers(model: nn.Module) -> dict[str, QuantSparseLinear]:
    return {n: m for n, m in model.named_modules() if isinstance(m, QuantSparseLinear) and m.input_scale is not None}
