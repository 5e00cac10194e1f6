"""Smoothing: the same function before quantization, the ranges that the formula says, masks as they were."""

import copy
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from sparseq import calibrate, convert
from sparseq.errors import InputError
from sparseq.nn import QuantSparseLinear, fused_reason, pack, smooth
from sparseq.nn.smoothing import foldable

SIZES: dict[str, Any] = {"vocab_size": 40, "num_labels": 2}
BERT = BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, **SIZES)
DISTIL = DistilBertConfig(dim=32, n_layers=2, n_heads=2, hidden_dim=64, **SIZES)


def make(**settings: Any) -> nn.Module:
    """A small BERT in fp64 with large weights, so that a wrong factor shows; converted."""
    torch.manual_seed(0)
    model = BertForSequenceClassification(BERT).double().eval()
    for parameter in model.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return convert(model, **settings)


def batches(count: int = 3) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    mask = torch.ones(4, 9, dtype=torch.int64)
    mask[1:, 6:] = 0
    ids = [torch.randint(5, 40, (4, 9), generator=generator) for _ in range(count)]
    return [{"input_ids": one, "attention_mask": mask} for one in ids]


def plain(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if hasattr(module, "quantizing"):
            module.quantizing = False
    return model


def logits(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([model(**batch).logits for batch in batches(5)])


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("settings", [{}, {"sparsity": 0.5, "pattern": "4x4"}], ids=str)
def test_in_fp64_nothing_changes_but_the_ranges(alpha: float, settings: dict[str, Any]) -> None:
    model = make(**settings)
    before, expected = copy.deepcopy(model), logits(plain(copy.deepcopy(model)))
    smooth(model, batches(), alpha)
    assert all(layer.quantizing for layer in model.modules() if isinstance(layer, QuantSparseLinear))
    for name, (value, attended) in foldable(model).items():
        old = before.get_submodule(name)
        factor = attended.weight.abs().amax(0) / old.weight.abs().amax(0)
        assert (factor[old.weight.abs().amax(0) > 0] - 1).abs().max() > 1e-3
        for now, then in ((attended, old), (value, before.get_submodule(name.replace("output.dense", "self.value")))):
            assert (now.mask is None) == (then.mask is None)
            if now.mask is not None:
                assert torch.equal(now.mask, then.mask) and not now.weight[~now.mask].any()
    assert torch.allclose(logits(plain(model)), expected, rtol=1e-12, atol=1e-12)
    assert dict(model.named_parameters()).keys() == dict(before.named_parameters()).keys()


def test_the_factors_are_those_of_the_paper() -> None:
    model = plain(make())
    name, (value, attended) = next(iter(foldable(model).items()))
    assert name == "bert.encoder.layer.0.attention.output.dense"
    seen = []
    hook = attended.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].abs().amax((0, 1))))
    logits_before = [model(**batch) for batch in batches()]
    hook.remove()
    largest = torch.stack(seen).amax(0)
    expected = largest**0.7 / attended.weight.abs().amax(0) ** 0.3
    rows, bias, columns = value.weight.clone(), value.bias.clone(), attended.weight.clone()
    smooth(model, batches(), 0.7)
    assert len(logits_before) == 3
    for found, wanted in (
        (value.weight, rows / expected[:, None]),
        (value.bias, bias / expected),
        (attended.weight, columns * expected),
    ):
        assert torch.allclose(found, wanted, rtol=1e-12)


def test_channels_that_nothing_reaches_stay() -> None:
    model = plain(make())
    value, attended = foldable(model)["bert.encoder.layer.1.attention.output.dense"]
    with torch.no_grad():
        value.weight[3], value.bias[3] = 0, 0
        attended.weight[:, 5] = 0
    before = attended.weight.clone(), value.weight.clone()
    expected = logits(model)
    smooth(model, batches())
    assert torch.equal(attended.weight[:, 3], before[0][:, 3]) and torch.equal(value.weight[5], before[1][5])
    assert torch.allclose(logits(model), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", ["dynamic", "static"])
def test_learned_and_static_scales_follow_and_the_packed_model_runs_fused(activation: str) -> None:
    torch.manual_seed(0)
    model = convert(BertForSequenceClassification(BERT).eval(), activation=activation, scale="lsq")
    if activation == "static":
        calibrate(model, batches())
    smooth(model, batches())
    for _, attended in foldable(model).values():
        assert torch.allclose(attended.step_size * 127, attended.weight.abs().amax(1))
        assert attended.calibrated == (activation == "dynamic")
    calibrate(model, batches())
    packed = pack(model)
    assert fused_reason(packed, of_model=True) is None
    assert torch.allclose(logits(packed), logits(model), atol=2e-2)


def test_distilbert_has_them_too() -> None:
    torch.manual_seed(0)
    model = plain(convert(DistilBertForSequenceClassification(DISTIL).double().eval()))
    expected = logits(model)
    before = model.distilbert.transformer.layer[1].attention.out_lin.weight.clone()
    assert len(foldable(model)) == 2
    smooth(model, batches())
    assert not torch.equal(before, model.distilbert.transformer.layer[1].attention.out_lin.weight)
    assert torch.allclose(logits(model), expected, rtol=1e-12, atol=1e-12)


def test_what_it_does_not_take_is_refused_and_nothing_changes() -> None:
    model = make()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputError, match=r"alpha is 1\.5"):
        smooth(model, batches(), 1.5)
    with pytest.raises(InputError, match="there are no batches to smooth with"):
        smooth(model, [])
    with pytest.raises(InputError, match="no value and output projections"):
        smooth(convert(nn.Sequential(nn.Linear(4, 4))), [{"input": torch.ones(1, 4)}])
    model.bert.encoder.layer[0].attention.self.value.weight.data[0, 0] = float("nan")
    with pytest.raises(InputError, match=r"NaN or Inf in the input of layer 'bert\.encoder\.layer\.0\.attention"):
        smooth(model, batches())
    model.bert.encoder.layer[0].attention.self.value.weight.data[0, 0] = state[
        "bert.encoder.layer.0.attention.self.value.weight"
    ][0, 0]
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
