"""The pooler of a model as native code has it."""

from typing import Any

import torch
from torch import Tensor, nn

from sparseq_kernels import InputError, instruction_set
from sparseq_kernels.cpu.linear import NativeLinear
from sparseq_kernels.cpu.native_weight import check_linear
from sparseq_kernels.encoder import EncoderLinear

from .reading import UnfitError
from .weights import product_of


class Pooler:
    """tanh of a dense layer of each sequence's first position. Its weight is packed in the first call."""

    def __init__(self, dense: EncoderLinear) -> None:
        self._dense = dense
        self._native: NativeLinear | None = None

    def __call__(self, hidden: Tensor) -> Tensor:
        """fp32 [batch, length, inputs], on the CPU -> [batch, outputs]. InputError for another width."""
        native = self._native
        if native is None or native.instruction_set != instruction_set():
            with torch.inference_mode(False), torch.no_grad():
                native = self._native = NativeLinear(self._dense)
        if hidden.shape[-1] != native.inputs:
            raise InputError(f"the pooler takes {native.inputs} features, and the encoder gives {hidden.shape[-1]}")
        return native(hidden[:, 0]).tanh_()


def read_pooler(model: Any, pooler: Any) -> Pooler:
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
        check_linear("the dense layer", found, (pooler.dense.out_features, pooler.dense.in_features))
    except InputError as error:
        raise UnfitError(str(error)) from None
    return Pooler(found)
