"""The page on the path of a weight says what is called, in order: each table is compared with what a run enters."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from entered import entered, missing, table

import sparseq
from sparseq.models import load_model
from sparseq.nn import QuantSparseLinear
from sparseq.prune import MagnitudePruner, SparsitySchedule
from sparseq_kernels import instruction_set, use_backend
from sparseq_kernels.cpu.linear import PACKED_FROM, packs_for


def training_layer() -> tuple[QuantSparseLinear, torch.Tensor]:
    layer = QuantSparseLinear(64, 32)
    layer.set_mask(torch.rand(32, 64) > 0.5)
    return layer, torch.randn(PACKED_FROM, 64, requires_grad=True)


@pytest.fixture
def native() -> Iterator[None]:
    with use_backend("native"):
        yield


def test_an_activation_in_training(native) -> None:
    layer, x = training_layer()
    if not packs_for(len(x), layer.weight):
        pytest.skip("here the product is int8_matmul.py's for any number of rows")
    with entered() as calls:
        layer(x).sum().backward()
    assert missing(table("training"), calls) is None


@pytest.mark.skipif(instruction_set() == "portable", reason="in portable C every call enters the op")
def test_an_activation_in_inference(native) -> None:
    packed, x = training_layer()[0].pack(), torch.randn(3, 64)
    with torch.no_grad(), entered() as calls:
        packed(x)
    assert missing(table("inference"), calls) is None
    assert not any(file.endswith("dispatch.py") for file, _ in calls)  # The op was not entered.


def test_a_weight(native, tiny_model_dir: Path, tmp_path: Path) -> None:
    """From a checkpoint to a packed layer that was loaded."""
    tokens = torch.randint(0, 40, (2, 5))
    with entered() as calls:
        model, _ = load_model(tiny_model_dir, num_labels=2)
        sparseq.convert(model)
        layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, QuantSparseLinear)}
        encoder = {name: layer for name, layer in layers.items() if ".encoder." in name}
        optimizer = torch.optim.AdamW(sparseq.parameter_groups(model, lr=1e-3))
        pruner = MagnitudePruner(encoder, SparsitySchedule(0.6, 0, 1))
        for step in (1, 2):
            model(input_ids=tokens, labels=torch.tensor([0, 1])).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            pruner.step(step)
        model(input_ids=tokens, labels=torch.tensor([0, 1])).loss.backward()
        pruner.step(3)
        sparseq.save(sparseq.pack(model), tmp_path / "packed")
        loaded = sparseq.load(tmp_path / "packed")
        with torch.no_grad():
            loaded(input_ids=tokens)
    # In portable C a layer multiplies by the op.
    without = ("multiply by it",) if instruction_set() == "portable" else ()
    assert missing(table("weight", without), calls) is None


def test_a_wrong_order_and_a_call_that_does_not_happen_are_found(native) -> None:
    layer, x = training_layer()
    if not packs_for(len(x), layer.weight):
        pytest.skip("here the product is int8_matmul.py's for any number of rows")
    with entered() as calls:
        layer(x).sum().backward()
    expected = table("training")
    assert missing(expected[::-1], calls) is not None
    other = ("sparseq/nn/pack.py", "pack")
    assert missing([expected[0], other], calls) == other
