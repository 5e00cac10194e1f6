"""The pooler of a fused encoder: by native code where that can be, otherwise by the model's modules."""

import pytest
import torch
from fused_models import batch, both, close, is_fused, packed
from torch import nn

from sparseq.nn import calibrate
from sparseq_kernels import use_instruction_set
from sparseq_kernels.cpu.native_weight import is_wanted
from sparseq_kernels.instruction_sets import available

pytestmark = [
    pytest.mark.skipif(not is_wanted(1), reason="native code is not used here"),
    pytest.mark.usefixtures("in_one_call", "no_gradients"),
]


def hooked_pooler(model):
    model.bert.pooler.register_forward_hook(lambda module, args, found: found * 2)


def hooked_dense(model):
    model.bert.pooler.dense.register_forward_hook(lambda module, args, found: found * 2)


def another_activation(model):
    model.bert.pooler.activation = nn.Sigmoid().eval()


def another_dense(model):
    model.bert.pooler.dense = nn.Linear(32, 32).eval()


def no_bias(model):
    model.bert.pooler.dense.bias = None


@pytest.mark.parametrize("change", [hooked_pooler, hooked_dense, another_activation, another_dense, no_bias])
def test_other_poolers_are_called(change, native):
    model = packed()
    before = model(**batch()).logits
    change(model)
    found, expected = both(model, **batch())
    close(found.logits, expected.logits)
    assert not torch.equal(found.logits, before)
    assert native == {"embeddings": 2, "pooler": 1 + (change is no_bias)}


def test_a_pooler_with_a_static_scale(native):
    model = packed(activation="static", prepare=lambda converted: calibrate(converted, [batch(seed=1)]))
    found, expected = both(model, **batch())
    close(found.logits, expected.logits)
    assert native == {"embeddings": 1, "pooler": 1}


def test_a_pooler_of_another_instruction_set(native):
    model = packed("Bert", "Model")
    found = model(**batch())
    for name in available():
        with use_instruction_set(name):
            close(model(**batch()).pooler_output, found.pooler_output)


def test_a_pooler_that_comes_and_goes():
    model = packed("Bert", "Model")
    pooler, expected = model.pooler, model(**batch()).pooler_output
    model.pooler = None
    assert is_fused(model, **batch()) and model(**batch()).pooler_output is None
    model.pooler = pooler
    assert torch.equal(model(**batch()).pooler_output, expected)
