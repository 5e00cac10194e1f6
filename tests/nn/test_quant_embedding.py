import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparseq.nn import QuantEmbedding


@pytest.mark.parametrize("bits", [4, 8, 16, None])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [(), (3,), (2, 5), (0,)])
def test_packing_changes_nothing(bits, masked, shape):
    ours = QuantEmbedding(11, 7, padding_idx=0, bits=bits)
    if masked:
        ours.set_mask(torch.rand(11, 7) > 0.5)
    indices = torch.randint(0, 11, shape)
    rows = ours(indices)
    assert torch.equal(ours.pack()(indices), rows)
    limit = 2 ** ((bits or 16) - 1) - 1
    exact = F.embedding(indices, ours.masked_weight())
    assert (rows - exact).abs().max() <= exact.abs().max() / limit if rows.numel() else True


def test_is_an_embedding_with_its_state_dict():
    plain, ours = nn.Embedding(11, 7, padding_idx=2), QuantEmbedding(11, 7, padding_idx=2)
    ours.load_state_dict(plain.state_dict())
    assert isinstance(ours, nn.Embedding) and list(ours.state_dict()) == ["weight"]
    shared = QuantEmbedding.from_embedding(plain, bits=4)
    assert shared.weight is plain.weight and shared.padding_idx == 2
    back = shared.to_embedding()
    assert type(back) is nn.Embedding and torch.equal(back.weight, plain.weight)


def test_gradient_is_straight_through_and_masked():
    ours = QuantEmbedding(5, 4, padding_idx=1)
    ours.set_mask(torch.rand(5, 4) > 0.5)
    ours(torch.tensor([0, 0, 1, 3])).sum().backward()
    expected = torch.tensor([2.0, 0, 0, 1, 0]).unsqueeze(1) * ours.mask
    assert torch.equal(ours.weight.grad, expected)
    ours.weight.grad = None
    ours.regrow = True
    ours(torch.tensor([0, 0, 1, 3])).sum().backward()
    assert torch.equal(ours.weight.grad, torch.tensor([2.0, 0, 0, 1, 0]).unsqueeze(1).expand(5, 4))


def test_settings_rebuild_the_layer():
    first = QuantEmbedding(11, 7, padding_idx=3, bits=4, pattern="1x7")
    first.set_mask(torch.ones(11, 7, dtype=torch.bool))
    second = QuantEmbedding.from_settings(first.settings())
    second.load_state_dict(first.state_dict())
    assert second.settings() == first.settings() and torch.equal(second(torch.tensor([4])), first(torch.tensor([4])))


def test_compile_and_export():
    ours, indices = QuantEmbedding(11, 7), torch.tensor([[1, 2]])
    torch._dynamo.reset()
    torch.compile(ours, fullgraph=True, backend="aot_eager")(indices).sum().backward()
    for module in (ours, ours.pack(), QuantEmbedding(11, 7, bits=4).pack()):
        assert torch.equal(torch.export.export(module, (indices,)).module()(indices), module(indices))


def test_max_norm_packs_to_what_was_looked_up():
    ours = QuantEmbedding(11, 7, max_norm=1.0)
    rows = ours(torch.arange(11))
    again = QuantEmbedding(11, 7, max_norm=1.0)
    packed = again.pack()
    assert rows.norm(dim=1).max() < 1.02
    torch.testing.assert_close(packed(torch.arange(11)), again(torch.arange(11)), rtol=1e-5, atol=1e-5)
