"""Buffers that are none of ours may hold what they like: the -Inf of a causal mask stays, from `convert` to `load`."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from sparseq import calibrate, convert, load, pack, save
from sparseq.errors import InputError


class Causal(nn.Module):
    """Attention of one head, with its mask as a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(16, 8)
        self.query, self.key, self.value = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.register_buffer("mask", torch.full((4, 4), -torch.inf).triu(1))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        result: Tensor = (self.query(x) @ self.key(x).T + self.mask).softmax(-1) @ self.value(x)
        return result


IDS = torch.tensor([2, 7, 9, 3])
FORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "plain": lambda model: model,
    "converted": convert,
    "pruned": lambda model: convert(model, sparsity=0.5, include=["*"]),
    "calibrated": lambda model: calibrate(convert(model, activation="static"), [{"ids": IDS}]),
    "packed": lambda model: pack(convert(model)),
    "packed pruned": lambda model: pack(convert(model, sparsity=0.5, include=["*"])),
    "packed calibrated": lambda model: pack(calibrate(convert(model, activation="static"), [{"ids": IDS}])),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_causal_mask(form: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = FORMS[form](Causal().eval()).eval()
    save(model, tmp_path)
    loaded = load(tmp_path, Causal())
    assert torch.equal(loaded.get_buffer("mask"), torch.full((4, 4), -torch.inf).triu(1))
    with torch.no_grad():
        torch.testing.assert_close(loaded(IDS), model(IDS))


@pytest.mark.parametrize("form", [form for form in FORMS if form != "plain"])
def test_a_parameter_of_infinity_is_refused(form: str) -> None:
    model = Causal().eval()
    with torch.no_grad():
        model.key.bias[3] = -torch.inf
    with pytest.raises(InputError, match=r"key\.bias"):
        FORMS[form](model)
