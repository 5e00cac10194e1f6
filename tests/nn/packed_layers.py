"""Packed layers of every format and number of bits, for tests that hold for all of them."""

import torch

from sparseq.nn import QuantEmbedding, QuantSparseLinear

# (bits, pattern, format): all that `pack` can make.
FORMS = [
    (bits, pattern, form)
    for bits in (4, 8, 16, None)
    for pattern, form in (("unstructured", "dense"), ("unstructured", "bitmask"), ("4x4", "block_sparse"))
] + [(8, "2:4", "semi_structured")]


def pruned(layer, sparsity=0.5):
    layer.set_mask(torch.ops.sparseq.magnitude_mask([layer.weight], sparsity, str(layer.pattern))[0])
    return layer


def linear(bits, pattern, form, seed=0, **options):
    """A packed 32 -> 16 layer, half of its weights pruned."""
    torch.manual_seed(seed)
    return pruned(QuantSparseLinear(32, 16, bits=bits, pattern=pattern, **options)).pack(form)


def embedding(bits, pattern, form, seed=0, **options):
    """A packed table of 16 rows of 32, half of its weights pruned."""
    torch.manual_seed(seed)
    return pruned(QuantEmbedding(16, 32, bits=bits, pattern=pattern, **options)).pack(form)


def input_of(layer, dtype=torch.float32):
    """An input for a layer of this module's."""
    torch.manual_seed(9)
    return torch.tensor([[0, 3], [15, 3]]) if hasattr(layer, "num_embeddings") else torch.randn(4, 32).to(dtype)
