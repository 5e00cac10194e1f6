"""What hangs on a layer is there in the packed model too, or `pack` refuses."""

import pytest
import torch
from torch import nn

from sparseq.nn import convert, pack
from sparseq_kernels import InputError


class Watched(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.table, self.seen = nn.Linear(8, 4), nn.Embedding(6, 8), []
        self.layer.register_forward_hook(self.note)

    def note(self, module, args, output):
        self.seen.append(type(module).__name__)

    def forward(self, ids):
        return self.layer(self.table(ids))


def test_hooks_are_carried_over_and_a_models_own_become_the_copys():
    model = convert(Watched())
    packed = pack(model)
    model.seen.clear()
    packed.seen.clear()
    packed(torch.tensor([1, 2]))
    assert packed.seen == ["PackedLinear"] and model.seen == []
    model(torch.tensor([1]))
    assert packed.seen == ["PackedLinear"] and model.seen == ["QuantSparseLinear"]


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("make", [lambda: nn.Linear(8, 4), lambda: nn.Embedding(8, 4)])
def test_every_kind_of_hook(make, whole):
    model = convert(nn.Sequential(make()))
    calls = []
    layer = model[0]
    layer.register_forward_pre_hook(lambda *a: calls.append("pre"))
    handle = layer.register_forward_hook(lambda m, a, kw, y: 2 * y, with_kwargs=True)
    layer.register_state_dict_post_hook(lambda *a: calls.append("state"))
    layer.register_load_state_dict_pre_hook(lambda module, *a: calls.append(type(module).__name__))
    layer.note = "kept"
    x = torch.tensor([1, 2]) if isinstance(layer, nn.Embedding) else torch.randn(2, 8)
    packed = pack(model)[0] if whole else layer.pack()
    calls.clear()
    torch.testing.assert_close(packed(x), layer.eval()(x), rtol=1e-4, atol=1e-5)
    assert calls == ["pre", "pre"] and packed.note == "kept"
    packed.load_state_dict(packed.state_dict())
    assert calls[2:] == ["state", type(packed).__name__]
    handle.remove()  # The layer's own.
    torch.testing.assert_close(packed(x), 2 * layer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("whole", [True, False])
def test_what_would_be_lost_is_refused(whole):
    from accelerate.hooks import ModelHook, add_hook_to_module

    hooked, own_forward, taken = (convert(nn.Sequential(nn.Linear(8, 4))) for _ in range(3))
    add_hook_to_module(hooked[0], ModelHook())
    own_forward[0].forward = lambda x: x
    taken[0].format = "mine"
    for model, why in (
        (hooked, "carries a hook of accelerate.*remove_hook_from_module"),
        (own_forward, "has a forward of its own, put on the instance.*del layer.forward"),
        (taken, "has an attribute 'format', a name that a PackedLinear uses: rename it"),
    ):
        with pytest.raises(InputError, match=("layer '0' .*" if whole else "") + why):
            pack(model) if whole else model[0].pack()
