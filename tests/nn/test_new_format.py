"""The format that CONTRIBUTING.md adds: one class, registered, and everything that stores or reads weights knows it."""

import pytest
import torch
from pages import load_example
from torch import nn

import sparseq
from sparseq.nn import PackedLinear, QuantEmbedding, QuantSparseLinear
from sparseq_kernels import InputError
from sparseq_kernels.formats import register, stored_bytes, unregister

# As CONTRIBUTING.md has it. It registers itself.
RowSparseWeight = load_example("kernels/sparseq_kernels/formats/row_sparse.py").RowSparseWeight
unregister("row_sparse")


@pytest.fixture(autouse=True)
def registered():
    register(RowSparseWeight)
    yield
    unregister("row_sparse")


def pruned(layer):
    """The layer with every other row of its weight dropped."""
    mask = torch.zeros_like(layer.weight, dtype=torch.bool)
    mask[::2] = True
    layer.set_mask(mask)
    return layer


@pytest.mark.parametrize("make", [lambda: QuantSparseLinear(64, 32), lambda: QuantEmbedding(32, 64)])
def test_it_is_packed_saved_loaded_and_multiplied_by(make, tmp_path):
    layer = pruned(make())
    x = torch.arange(32) if isinstance(layer, QuantEmbedding) else torch.randn(5, 64)
    packed = sparseq.pack(nn.Sequential(layer))
    assert packed[0].format == "row_sparse"  # It is the smallest: 16 rows of 64 bytes, and 64 bytes that name them.
    assert stored_bytes(packed[0].stored_weight()) == 16 * 64 + 64
    assert torch.equal(packed(x), layer.pack("dense")(x)) and torch.equal(layer.pack("row_sparse")(x), packed(x))
    sparseq.save(packed, tmp_path)
    loaded = sparseq.load(tmp_path, nn.Sequential(make()))
    assert loaded[0].format == "row_sparse" and torch.equal(loaded(x), packed(x))
    assert loaded[0].settings() == packed[0].settings()


def test_gradients_compiled_calls_and_moves():
    layer = pruned(QuantSparseLinear(64, 32)).pack("row_sparse")
    dense = pruned(QuantSparseLinear(64, 32)).pack("dense")
    dense.load_state_dict({name: layer.get_buffer(name) for name in ("scale", "bias")}, strict=False)
    dense.values.copy_(layer.quantized_values())
    x = torch.randn(3, 64, requires_grad=True)
    [got], [expected] = (torch.autograd.grad(module(x).sum(), x) for module in (layer, dense))
    assert torch.equal(got, expected)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x.detach()), layer(x.detach()))
    assert torch.equal(layer.to(torch.float64).to(torch.float32)(x), dense(x))


def test_what_it_cannot_hold_is_refused():
    with pytest.raises(InputError, match=r"'row_sparse' holds weights of 8 or 16 bits \(the layer has bits=4"):
        pruned(QuantSparseLinear(64, 32, bits=4)).pack("row_sparse")
    settings = pruned(QuantSparseLinear(64, 32)).pack("row_sparse").settings()
    settings["weight"]["kept_rows"] = 33
    with pytest.raises(InputError, match="kept_rows is 33, and must be a whole number from 0 to 32"):
        PackedLinear.from_settings(settings)


def test_a_name_is_taken_once_and_unknown_ones_are_refused():
    with pytest.raises(InputError, match="there is a format 'row_sparse' already"):
        register(RowSparseWeight)
    unregister("row_sparse")
    with pytest.raises(InputError, match="'row_sparse' is not one of dense"):
        QuantSparseLinear(64, 32).pack("row_sparse")
    with pytest.raises(InputError, match="'row_sparse' is not one of dense"):
        unregister("row_sparse")
    register(RowSparseWeight)
