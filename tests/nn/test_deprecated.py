"""Earlier names: they do what the new ones do, and warn where they are used."""

import pytest
import torch
from torch import nn

import sparseq
from sparseq.nn import (
    PackedEmbedding,
    PackedLinear,
    QuantEmbedding,
    QuantSparseLinear,
    multiply_as_stored,
    use_sparse_kernels,
)


def warns(old, new):
    return pytest.warns(DeprecationWarning, match=f"^{old} is deprecated: use {new}$")


def test_multiply_as_stored():
    model = sparseq.pack(nn.Sequential(QuantSparseLinear(8, 4)))
    with warns("multiply_as_stored", "use_sparse_kernels") as found:
        assert multiply_as_stored(model, False) is model
    assert model[0].sparse_kernels is False and found[0].filename == __file__
    with warns("PackedLinear.as_stored", "sparse_kernels") as found:
        assert model[0].as_stored is False
    assert found[0].filename == __file__
    with warns("PackedLinear.as_stored", "sparse_kernels"):
        model[0].as_stored = True
    assert model[0].sparse_kernels is True and use_sparse_kernels(model, None)[0].sparse_kernels is None


def test_levels():
    packed = QuantSparseLinear(8, 4).pack()
    with warns("PackedLinear.levels", "quantized_values") as found:
        assert torch.equal(packed.levels(), packed.quantized_values())
    assert found[0].filename == __file__


def test_from_layer():
    layer, table = QuantSparseLinear(8, 4), QuantEmbedding(8, 4)
    with warns("PackedLinear.from_layer", "the training layer's method pack") as found:
        packed = PackedLinear.from_layer(layer, "bitmask")
    assert isinstance(packed, PackedLinear) and packed.format == "bitmask" and found[0].filename == __file__
    with warns("PackedEmbedding.from_layer", "the training layer's method pack"):
        assert isinstance(PackedEmbedding.from_layer(table), PackedEmbedding)


def test_mask_tiles():
    with warns("QuantSparseLinear.mask_tiles", "mask_block_index"):
        assert QuantSparseLinear(8, 4).mask_tiles() is None
