"""Outputs are as the constructors of transformers make them; a changed configuration is seen."""

import copy
import dataclasses
import pickle

import pytest
import torch
from fused_models import FAMILIES, base, batch, both, is_fused, packed
from transformers import modeling_outputs

from sparseq.nn.fused import FAMILIES as REGISTERED
from sparseq.nn.fused import outputs
from sparseq.nn.fused.outputs import make_output

NAMES = sorted({family.result for family in REGISTERED.values()})


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("states", [False, True])
def test_an_output_is_that_of_the_constructor(name, states):
    cls = getattr(modeling_outputs, name)
    values = {"last_hidden_state": torch.ones(1, 2)}
    if "pooler_output" in {field.name for field in dataclasses.fields(cls)}:
        values["pooler_output"] = None if states else torch.zeros(2)
    if states:
        values["hidden_states"] = (torch.ones(1), torch.zeros(1))
    found, expected = make_output(name, values), cls(**values)
    assert type(found) is cls and found.keys() == expected.keys()
    assert all(found[key] is expected[key] for key in expected) and vars(found).keys() == vars(expected).keys()
    assert all(getattr(found, field.name) is getattr(expected, field.name) for field in dataclasses.fields(cls))
    assert found.to_tuple() == expected.to_tuple() and found[0] is values["last_hidden_state"]
    for copied in (copy.copy(found), pickle.loads(pickle.dumps(found))):
        assert type(copied) is cls and copied.keys() == expected.keys()
    found.hidden_states = (torch.ones(3),)
    assert found["hidden_states"] is found.hidden_states


def test_outputs_are_not_filled_by_the_constructor():
    """It lists the class's fields for each of them: half of the time of a short sentence's Python."""
    for name in NAMES:
        assert outputs._class(name, ("last_hidden_state",))[1] is not None


def test_other_outputs_are_made_by_the_constructor(monkeypatch):
    @dataclasses.dataclass
    class Other(modeling_outputs.ModelOutput):
        last_hidden_state: torch.Tensor | None = None

        def __setitem__(self, key, value):
            super().__setitem__(key, value)
            self.__dict__["noted"] = self.__dict__.get("noted", 0) + 1

        def __post_init__(self):
            super().__post_init__()
            self.__dict__["made"] = True

    monkeypatch.setattr(modeling_outputs, "Other", Other, raising=False)
    found = make_output("Other", {"last_hidden_state": torch.ones(1)})
    assert vars(found) == vars(Other(last_hidden_state=found[0]))


CHANGES = [
    ("output_hidden_states", True, True),
    ("output_attentions", True, False),
    ("return_dict", False, True),
    ("is_decoder", True, False),
    ("is_causal", True, False),
]


@pytest.mark.parametrize("name,value,fused", CHANGES)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_changed_configuration_is_seen(family, name, value, fused):
    model = packed(family)
    encoder = base(model)
    if name == "output_attentions":
        model.set_attn_implementation("eager")
    with torch.no_grad():
        before = encoder(**batch())
        assert is_fused(encoder, **batch())
        old = getattr(encoder.config, name, None)
        setattr(encoder.config, name, value)
        assert is_fused(encoder, **batch()) == fused
        if fused:
            found, expected = both(encoder, **batch())
            assert type(found) is type(expected) and len(found) == len(expected)
        setattr(encoder.config, name, old)
        assert is_fused(encoder, **batch()) and type(encoder(**batch())) is type(before)


def test_another_configuration_is_seen():
    model = packed("Bert", "Model")
    with torch.no_grad():
        assert model(**batch()).hidden_states is None
        model.config = copy.deepcopy(model.config)
        model.config.output_hidden_states = True
        assert len(model(**batch()).hidden_states) == 3
        model.config.something = torch.ones(3).numpy()
        assert len(model(**batch()).hidden_states) == 3
        model.config.something = torch.ones(3).numpy()
        assert is_fused(model, **batch())
