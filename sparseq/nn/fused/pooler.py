"""The pooled output: the pooler's dense layer and tanh of the first position, by native code where that can be."""

from typing import Any

import torch
from torch import Tensor, nn

from sparseq_kernels import backend
from sparseq_kernels.cpu import native
from sparseq_kernels.encoder import EncoderLinear
from sparseq_kernels.numerics import check_depth

from .reading import UnfitError, reading_of
from .weights import product_of


def pooled(model: Any, hidden: Tensor) -> Tensor | None:
    """[B, L, H] -> [B, H] as the model's pooler gives it; None where it has none."""
    pooler = model.pooler
    if pooler is None:
        return None
    if hidden.is_cpu and hidden.dtype is torch.float32 and backend() == "native":
        found = reading_of(model, "_read_pooler", pooler, lambda: _read(model)).now()
        if not isinstance(found, str):
            first = native.quantized_linear(hidden[:, 0], found.weight, found.weight_scale, found.bias, 8)
            return first.tanh_()
    given: Tensor = pooler(hidden)
    return given


def _read(model: Any) -> EncoderLinear:
    """What native code multiplies by. UnfitError where the pooler's modules are to be called."""
    pooler, features = model.pooler, model.config.hidden_size
    if type(pooler).__module__ != model._plain.__module__:
        raise UnfitError(f"it is of the class {type(pooler).__name__}, which is not transformers' own")
    if pooler._modules.keys() != {"dense", "activation"} or type(pooler.activation) is not nn.Tanh:
        raise UnfitError("it has other parts than a dense layer and tanh")
    with torch.inference_mode(False), torch.no_grad():
        found = product_of("the dense layer", pooler.dense)
    if found.input_scale is not None:
        raise UnfitError("the dense layer has a static scale")
    check_depth(features)
    floats = (found.weight_scale, found.bias) if found.bias is not None else (found.weight_scale,)
    fit = found.weight.shape == (features, features) and found.weight.is_cpu
    if not fit or any(one.dtype is not torch.float32 or not one.is_cpu for one in floats):
        raise UnfitError("the dense layer is not in fp32 on a CPU")
    return found
