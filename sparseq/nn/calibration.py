"""The scales of static activations, from batches and over processes."""

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
    """Sets the scales of static activations from the values that `batches` (keyword arguments of the model's forward)
    bring to each layer; returns the model. Scales that were set before are forgotten.

    method: what a layer's range ends at, and what it follows when the model is trained on:

    - "max": the largest magnitude of all; training raises it further. One outlier widens it for good.
    - "average": the mean over batches of each one's largest magnitude; training moves it by a hundredth of the way to
      each batch's (Q8BERT, Zafrir et al. 2019).
    - "percentile": what `percentile` percent of the magnitudes above 0 do not exceed (Wu et al. 2020); training leaves
      it.
    - "mse": where the expected squared error of quantization is least, so that an outlier which weighs more than the
      rest widens it; training leaves it.

    Magnitudes beyond the range are clipped. Learned scales (`scale="lsq"`) begin there and are trained.

    share: where a process group is initialized, the processes take the largest scales that any of them found; each
    has to call this function then. False keeps to this process's batches.

    Raises InputError, naming the layer and the batch, for activations that are NaN or Inf, and where there are no
    batches; the scales are as they were before then. And for learned scales that FSDP shards: calibrate, then wrap.
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
                finite = layer._follow(x, "max")  # what the layers behind it see is quantized so far
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
                finally:  # before what a layer says that has found no scale in a bad batch
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
    """Raises InputError for the first layer, in the order of execution, to which the batch brought NaN or Inf."""
    if seen and not torch.stack([finite.reshape(()).cpu() for finite in seen.values()]).all():
        name = next(name for name, finite in seen.items() if not finite)
        raise InputError(
            f"calibration batch {number} (the first is 0) brings NaN or Inf to the input of layer {name!r}, which "
            "gives no scale: leave that batch out, or mend what comes before the layer"
        )


@torch.no_grad()
def share_static_scales(model: nn.Module, group: Any = None) -> nn.Module:
    """Gives the static activation scales of all processes of `group` (None: all there are) the largest value that any
    of them has; returns the model. Does nothing where no process group is initialized.

    Static scales follow the rows that a process sees, and DistributedDataParallel does not average them. Call this
    before training and after each optimizer step, in every process: it is one all_reduce of a value for each layer, and
    waits for the others. `calibrate` and the trainer call it by themselves.
    """
    layers = list(_static_layers(model).values())
    if not layers or not (dist.is_available() and dist.is_initialized()):
        return model
    for layer in layers:
        layer._shared = True
    place = next((s.device for layer in layers if (s := layer.input_scale) is not None), torch.device("cpu"))
    # A shard that is empty in one process is not in another: every process sends a value for each layer all the same.
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
