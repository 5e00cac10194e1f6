import pytest
import torch
from rounding import assert_within_rounding

from sparseq.nn import PackedEmbedding, PackedLinear, QuantEmbedding, QuantSparseLinear
from sparseq_kernels import InputError

pytestmark = pytest.mark.processor


def pruned(pattern, bits, sparsity=0.5):
    layer = QuantSparseLinear(32, 16, bits=bits, pattern=pattern)
    layer.set_mask(torch.ops.sparseq.magnitude_mask([layer.weight], sparsity, pattern)[0])
    return layer


@pytest.mark.parametrize("bits", [4, 8, 16, None])
@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "4x4", "16x32"])
def test_trained_and_packed_agree_and_reload(pattern, bits):
    layer = pruned(pattern, bits) if pattern != "16x32" else pruned(pattern, bits, 0.0)
    packed, x = layer.pack(), torch.randn(2, 5, 32)
    torch.testing.assert_close(packed(x), layer(x), rtol=1e-6, atol=1e-6)
    again = PackedLinear.from_settings(packed.settings())
    again.load_state_dict(packed.state_dict())
    assert again.settings() == packed.settings()
    assert_within_rounding(again(x), packed(x), 32)
    assert packed.weight_counts().kept == int(layer.mask.sum()) and packed.weight_counts().total == 512


@pytest.mark.parametrize("format", ["dense", "bitmask", "block_sparse"])
def test_a_format_can_be_asked_for(format):
    layer = pruned("4x4", 8)
    packed, x = layer.pack(format), torch.randn(3, 32)
    assert packed.format == format and torch.equal(packed(x), layer(x))


def test_formats_that_cannot_be():
    with pytest.raises(InputError, match=r"'block_sparse' needs a block pattern such as '4x4' .*unstructured"):
        pruned("unstructured", 8).pack("block_sparse")
    with pytest.raises(InputError, match="'csr' is not one of dense, semi_structured, bitmask, block_sparse"):
        pruned("unstructured", 8).pack("csr")
    with pytest.raises(InputError, match=r"'semi_structured' holds weights of 8 bits \(the layer has bits=16"):
        pruned("2:4", 16).pack("semi_structured")
    with pytest.raises(InputError, match="'semi_structured' holds at most two of every four columns"):
        QuantSparseLinear(32, 16).pack("semi_structured")


@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "4x4", "16x32"])
def test_an_empty_layer_can_be_moved_before_its_weight_is_loaded(pattern):
    packed, x = (pruned(pattern, 8) if pattern != "16x32" else pruned(pattern, 8, 0.0)).pack(), torch.randn(3, 32)
    empty = PackedLinear.from_settings(packed.settings()).to("meta").to_empty(device="cpu")
    empty.load_state_dict(packed.state_dict())
    assert torch.equal(empty(x), packed(x))


def test_only_what_is_stored_is_in_the_state():
    packed = pruned("4x4", 8).pack()
    state = packed.state_dict()
    assert list(state) == ["values", "bitmap", "scale", "bias"]
    assert state["values"].numel() == 256 and state["bitmap"].numel() == 4 and state["values"].dtype == torch.int8
    assert not list(packed.parameters())


def test_an_inconsistent_bitmap_is_refused_on_load():
    packed = pruned("unstructured", 8).pack()
    state = packed.state_dict()
    state["bitmap"] = torch.zeros_like(state["bitmap"])
    with pytest.raises(InputError, match="bitmap marks 0 blocks"):
        PackedLinear.from_settings(packed.settings()).load_state_dict(state)


@pytest.mark.parametrize("bits", [4, 8, None])
def test_tensors_of_another_shape_are_named_on_load(bits):
    state = pruned("unstructured", bits, 0.5).pack("bitmask").state_dict()
    layer = pruned("unstructured", bits, 0.25).pack("bitmask")
    with pytest.raises(RuntimeError, match="size mismatch for values"):
        layer.load_state_dict(state)
    with pytest.raises(InputError, match="bitmap marks"):  # the rest of the state is there now
        layer(torch.randn(3, 32))


def test_the_dequantized_weight_can_be_read():
    layer = QuantSparseLinear(32, 16)
    assert (layer.pack().weight - layer.weight).abs().max() <= layer.weight.abs().max() / 254 + 1e-6
    embedding = QuantEmbedding(9, 6, bits=4)
    assert (embedding.pack().weight - embedding.weight).abs().max() <= embedding.weight.abs().max() / 14 + 1e-6


def test_four_bit_embeddings_are_not_expanded():
    packed = QuantEmbedding(100, 8, bits=4).pack()
    packed(torch.tensor([1]))
    assert isinstance(packed, PackedEmbedding) and packed.values.shape == (100, 4)
    assert [name for name, _ in packed.named_buffers()] == ["values", "scale"]
