"""From a quantized and pruned model to the packed one."""

import copy
from typing import Any

from torch import Tensor, nn

from sparseq_kernels import InputError

from .check import check_finite
from .embedding import QuantEmbedding
from .linear import QuantSparseLinear
from .packed import PackedEmbedding, Stored, pack_weight
from .packed_linear import PackedLinear
from .save_pretrained import refuse_save_pretrained
from .unwrap import unwrapped


def pack(model: nn.Module) -> nn.Module:
    """A copy of the model for inference, in eval mode, that shares nothing with it: each `QuantSparseLinear` and
    `QuantEmbedding` becomes its packed form, in the format that stores it in the fewest bytes.

    What torch.compile, data parallelism or an average of weights has put around the model is left out.
    Raises InputError for FSDP's shards, for NaN or Inf in the weights, and for static activations that were never
    calibrated.
    """
    model = unwrapped(model)
    check_finite(model)
    # Packed layers take the place of the training ones while copying, so that the big weights are not copied first.
    memo: dict[int, Any] = {}
    stored: dict[Any, Stored] = {}
    for name, layer in model.named_modules():
        if isinstance(layer, QuantSparseLinear | QuantEmbedding):
            # Tied weights, such as an embedding's and a language model head's, are stored once if they are quantized
            # alike.
            learned = None if getattr(layer, "step_size", None) is None else id(layer.step_size)
            key = (id(layer.weight), id(layer.mask), layer.bits, layer.pattern, learned)
            if key not in stored:
                stored[key] = pack_weight(layer, None)
            kind = PackedLinear if isinstance(layer, QuantSparseLinear) else PackedEmbedding
            try:
                packed = kind.from_layer(layer, stored=stored[key])  # type: ignore[arg-type]
            except InputError as error:
                raise InputError(f"layer {name!r} cannot be packed: {error}") from error
            memo[id(layer)] = packed
            if isinstance(layer, QuantSparseLinear) and layer.bias is not None:
                assert isinstance(packed.bias, Tensor)
                memo[id(layer.bias)] = nn.Parameter(packed.bias, layer.bias.requires_grad)
    return refuse_save_pretrained(copy.deepcopy(model, memo).eval())
