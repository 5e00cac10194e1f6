"""What is left out of a padded batch, and where it pays."""

import pytest
import torch
from fused_models import base, batch, both, left, packed, right

from sparseq.nn.fused.padding import MOST_REAL, padding_of

MASKS = {
    "right": right(11, 3, 8, 1),
    "left": left(11, 3, 8, 1),
    "short": right(3, 4, 2, 1),
    "gaps": right(11, 9, 11, 11).logical_and(torch.arange(11) % 3 != 1).long(),
    "a sequence without a token": right(6, 0, 6, 1),
}


@pytest.mark.parametrize("name", MASKS)
def test_rows_and_places(name):
    real = MASKS[name].bool()
    padding = padding_of(real)
    rows = torch.zeros(4 * 11, dtype=torch.bool)
    rows[padding.rows] = True
    rows = rows.view(4, 11)
    assert rows[:, 0].all() and rows[real].all()
    assert rows[~real].sum() == (~real[:, 0]).sum() + (10 if name == "a sequence without a token" else 0)
    assert padding.columns == int(rows.any(0).nonzero().max()) + 1
    x = torch.randn(4, 11, 5)
    assert torch.equal(padding.restore(padding.gather(x)), x.masked_fill(~rows.unsqueeze(-1), 0))
    spread = padding.spread(padding.gather(x))
    assert torch.equal(spread, x.masked_fill(~rows.unsqueeze(-1), 0)[:, : padding.columns])
    assert torch.equal(padding.collect(spread), padding.gather(x))


def test_little_padding_is_computed():
    real = torch.ones(10, 10, dtype=torch.bool)
    real[0, 1:] = False
    assert real.sum() > MOST_REAL * 100 and padding_of(real) is None
    real[1, 1:] = False
    assert padding_of(real) is not None


def test_a_mask_is_not_written():
    mask = left(11, 3, 8, 1).bool()
    before = mask.clone()
    with torch.inference_mode():
        packed()(**batch(), attention_mask=mask)
    assert torch.equal(mask, before)


@pytest.mark.parametrize("name", MASKS)
def test_padded_positions_are_zeros_where_they_are_left_out(name):
    mask = MASKS[name]
    encoder = base(packed())
    found, _ = both(encoder, **batch(), attention_mask=mask, output_hidden_states=True)
    left_out = mask == 0
    left_out[:, 0] = False
    left_out[mask.sum(1) == 0] = False
    for hidden in (found.last_hidden_state, *found.hidden_states[1:]):
        assert not hidden[left_out].any() and hidden[~left_out].ne(0).any(-1).all()


def test_what_is_computed_does_not_depend_on_the_padding():
    model, given = packed(), batch(2, 5)["input_ids"]
    longer = torch.nn.functional.pad(given, (0, 6))
    with torch.inference_mode():
        alone = model(input_ids=given).logits
        padded = model(input_ids=longer, attention_mask=right(5, 5)).logits
    torch.testing.assert_close(padded, alone, rtol=1e-4, atol=1e-4)
