"""sparseq's own layer classes by name, and the layers of a model that are instances of them."""

from collections.abc import Iterator

from torch import nn

from .embedding import QuantEmbedding
from .linear import QuantSparseLinear
from .masking import MaskedWeight
from .packed import Packed
from .packed_embedding import PackedEmbedding
from .packed_linear import PackedLinear

LAYERS: dict[str, type[nn.Module]] = {
    cls.__name__: cls for cls in (QuantSparseLinear, QuantEmbedding, PackedLinear, PackedEmbedding)
}


def named_layers(model: nn.Module) -> Iterator[tuple[str, MaskedWeight | Packed]]:
    """(name, layer) of sparseq's own layers in the model."""
    for name, module in model.named_modules():
        if isinstance(module, MaskedWeight | Packed):
            yield name, module
