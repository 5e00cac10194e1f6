"""The pooler of a model as native code has it."""

from typing import Any

import torch
from torch import nn

from sparseq_kernels import InputError
from sparseq_kernels.cpu.pooler import NativePooler

from .reading import UnfitError
from .weights import product_of


def read_pooler(model: Any, pooler: Any) -> NativePooler:
    """The dense layer and tanh of a model's pooler. UnfitError where its modules are to be called."""
    if type(pooler).__module__ != model._plain.__module__:
        raise UnfitError(f"it is of the class {type(pooler).__name__}, which is not transformers' own")
    if pooler._modules.keys() != {"dense", "activation"} or type(pooler.activation) is not nn.Tanh:
        raise UnfitError("it has other parts than a dense layer and tanh")
    if pooler.dense.in_features != model.config.hidden_size or pooler.dense.dtype is not torch.float32:
        raise UnfitError("the dense layer does not fit the hidden states")
    with torch.inference_mode(False), torch.no_grad():
        found = product_of("the dense layer", pooler.dense)
    try:
        return NativePooler(found)
    except InputError as error:
        raise UnfitError(str(error)) from None
