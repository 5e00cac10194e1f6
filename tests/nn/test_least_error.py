"""Weight scales with the least squared error, beside every scale there is, in fp64."""

import pytest
import torch
from torch import Tensor, nn

from sparseq import convert
from sparseq.errors import InputError
from sparseq.nn import QuantSparseLinear, fit_weight_scales, least_error_scale, pack
from sparseq_kernels.numerics import qmax, row_max, scale_from_max


def error(weight: Tensor, scale: Tensor, bits: int) -> Tensor:
    """fp64 [rows]: the squared error of rounding each row by its scale."""
    w, s = weight.double(), scale.double().unsqueeze(-1)
    return (w - s * torch.round(w / s).clamp(-qmax(bits), qmax(bits))).square().sum(-1)


def least_possible(weight: Tensor, bits: int) -> Tensor:
    """fp64 [rows]: the error of the best scale of all.

    As a scale falls, the integers of a row rise one by one, where |w| / s passes a half. Between two of these places
    they are constant, and their best scale leaves |w|^2 - (w.q)^2 / q.q.
    """
    found = []
    q = torch.arange(1, qmax(bits) + 1, dtype=torch.float64)
    for row in weight.double().abs():
        places = (row.unsqueeze(-1) / (q - 0.5)).flatten()
        order = places.argsort(descending=True)
        along = row.unsqueeze(-1).expand(-1, len(q)).flatten()[order].cumsum(0)
        square = (q.square() - (q - 1).square()).expand(len(row), -1).flatten()[order].cumsum(0)
        found.append(row.square().sum() - (along.square() / square).amax())
    return torch.stack(found)


def weights(kind: str) -> Tensor:
    torch.manual_seed(0)
    if kind == "normal":
        return torch.randn(24, 384) * 0.03
    if kind == "heavy tails":
        return torch.distributions.StudentT(2.0).sample((24, 256))
    w = torch.randn(24, 128)
    return torch.where(torch.rand(w.shape) < 0.6, 0.0, w)


@pytest.mark.parametrize("kind", ["normal", "heavy tails", "pruned"])
def test_at_4_bits_the_error_is_that_of_the_best_scale(kind: str) -> None:
    w = weights(kind)
    least = least_possible(w, 4)
    found = error(w, least_error_scale(w, 4), 4)
    assert (found >= least * (1 - 1e-9)).all()
    assert (found <= least * 1.02).all() and found.mean() <= least.mean() * 1.005
    assert found.mean() < 0.92 * error(w, scale_from_max(row_max(w), 4), 4).mean()


@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize("kind", ["normal", "heavy tails", "pruned"])
def test_the_error_is_never_above_that_of_the_largest_weights_scale(kind: str, bits: int) -> None:
    w = weights(kind)
    found, plain = (error(w, scale, bits) for scale in (least_error_scale(w, bits), scale_from_max(row_max(w), bits)))
    assert (found <= plain * (1 + 1e-6)).all() and found.sum() < plain.sum()


def test_rows_are_independent_and_scale_with_the_weights() -> None:
    w = weights("normal")
    whole = least_error_scale(w, 4)
    assert torch.equal(whole, torch.cat([least_error_scale(row.unsqueeze(0), 4) for row in w]))
    assert torch.equal(least_error_scale(w * 2.0**-20, 4), whole * 2.0**-20)
    assert torch.equal(least_error_scale(-w, 4), whole)


def test_zeros_shapes_and_dtypes() -> None:
    assert least_error_scale(torch.zeros(2, 8), 4).tolist() == [1.0, 1.0]
    assert least_error_scale(torch.zeros(0, 8), 4).shape == (0,)
    assert least_error_scale(torch.zeros(3, 0), 4).tolist() == [1.0] * 3
    assert least_error_scale(torch.randn(3, 70_000), 4).shape == (3,)  # a row longer than a chunk
    assert least_error_scale(torch.randn(2, 8).bfloat16(), 4).dtype == torch.float32
    assert least_error_scale(torch.randn(2, 8).double(), 4).dtype == torch.float64


def test_a_models_learned_scales_are_set_with_their_masks_and_packed() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 32), nn.Linear(32, 4))
    convert(model, bits=4, scale="lsq", sparsity=0.5, pattern="unstructured", include=(nn.Linear,))
    assert fit_weight_scales(model) is model
    x = torch.randn(5, 64)
    for layer in model:
        assert isinstance(layer, QuantSparseLinear) and layer.mask is not None
        assert torch.equal(layer.channel_scale(), least_error_scale(layer.masked_weight(), 4))
    assert torch.allclose(pack(model)(x), model.eval()(x), atol=1e-5)


def test_layers_that_share_a_weight_share_the_scale() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = model[0].weight
    convert(model, bits=4, scale="lsq")
    fit_weight_scales(model)
    assert model[0].step_size is model[1].step_size
    assert torch.equal(model[0].channel_scale(), least_error_scale(model[0].weight, 4))


def test_a_model_without_learned_scales_is_refused() -> None:
    with pytest.raises(InputError, match="no learned weight scales"):
        fit_weight_scales(convert(nn.Sequential(nn.Linear(4, 4))))
