"""What follows from the weights, made to follow them again after they were changed from outside."""

from torch import nn

from .layers import named_layers
from .linear import QuantSparseLinear
from .masking import MaskedWeight


def refresh(model: nn.Module) -> nn.Module:
    """Sets learned weight scales from the weights as they are now and masked weights to zero; returns the model.

    To be called after weights were written by something else than training: an adapter merged into them
    (`merge_and_unload`), weights averaged or loaded without their scales. A learned scale that is too small for its new
    weights clips them. A mask removes what a merge adds to masked weights, in every forward: merge into layers without
    masks (`layer.set_mask(None)` before the merge) and prune again, if the adapter is to be kept whole. Static
    activation scales follow the inputs and not the weights: call `calibrate` where those changed.
    """
    for _, layer in named_layers(model):
        if isinstance(layer, MaskedWeight):
            layer.apply_mask()
        if isinstance(layer, QuantSparseLinear):
            layer.reset_weight_scale()
    return model
