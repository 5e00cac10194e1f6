"""Updates of scales and masked weights after the weights were changed from outside."""

from torch import nn

from .layers import named_layers
from .linear import QuantSparseLinear
from .masking import MaskedWeight


def refresh(model: nn.Module) -> nn.Module:
    """Sets learned weight scales from the current weights, and masked weights to zero; returns the model.

    Call it after something other than training wrote the weights: an adapter was merged (`merge_and_unload`), or
    weights were averaged or loaded without their scales. A learned scale that is too small for its new weights would
    clip them. A mask removes what a merge adds to masked weights, in every forward. To keep the whole adapter, merge
    into layers without masks (`layer.set_mask(None)` before the merge) and prune again. Static activation scales follow
    the inputs and not the weights: call `calibrate` if the inputs changed.
    """
    for _, layer in named_layers(model):
        if isinstance(layer, MaskedWeight):
            layer.apply_mask()
        if isinstance(layer, QuantSparseLinear):
            layer.reset_weight_scale()
    return model
