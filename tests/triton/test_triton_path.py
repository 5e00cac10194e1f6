"""The tables of a GPU on the page on the path of a weight, compared with what a run enters."""

from collections.abc import Iterator

import pytest
import torch
from entered import entered, missing, table
from gpu_or_interpreter import DEVICE

from sparseq.nn import QuantSparseLinear
from sparseq_kernels import use_backend
from sparseq_kernels.triton.runtime.heuristics import int8_config

# More than what one kernel takes.
ROWS = 40


@pytest.fixture
def layer() -> Iterator[QuantSparseLinear]:
    layer = QuantSparseLinear(64, 32, dtype=torch.bfloat16)
    layer.set_mask(torch.rand(32, 64) > 0.5)
    int8_config.cache_clear()  # A config that was chosen before is not chosen again.
    with use_backend("triton"):
        yield layer.to(DEVICE)


def test_an_activation_in_training(layer: QuantSparseLinear) -> None:
    x = torch.randn(ROWS, 64, dtype=torch.bfloat16, device=DEVICE, requires_grad=True)
    with entered() as calls:
        layer(x).sum().backward()
    assert missing(table("training-gpu"), calls) is None


@pytest.mark.parametrize(("rows", "steps"), [(4, "up to 32 rows"), (ROWS, "more rows")])
def test_an_activation_in_inference(rows: int, steps: str, layer: QuantSparseLinear) -> None:
    packed, x = layer.pack(), torch.randn(rows, 64, dtype=torch.bfloat16, device=DEVICE)
    others = {"up to 32 rows", "more rows"} - {steps}
    with torch.no_grad(), entered() as calls:
        packed(x)
    assert missing(table("inference-gpu", without=others), calls) is None
