import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from rounding import assert_within_rounding
from torch import nn

from sparseq.nn import QuantSparseLinear
from sparseq_kernels import InputError, use_backend

SETTINGS = [
    {},
    {"bits": 4},
    {"bits": 16},
    {"bits": None},
    {"scale": "lsq"},
    {"activation": "static"},
    {"activation": "static", "scale": "lsq", "bits": 4},
]


def layer(i=12, o=8, *, masked=False, **settings):
    made = QuantSparseLinear(i, o, **settings)
    if masked:
        made.set_mask(torch.rand(o, i) > 0.5)
    return made


def ready(made, i=12):
    """Static activations have a scale after one training step."""
    made(torch.randn(4, i))
    return made


def test_takes_the_inputs_of_pytorchs_own_module_database():
    pytest.importorskip("expecttest", reason="PyTorch's module database needs expecttest")
    from torch.testing._internal.common_modules import module_db

    (info,) = [m for m in module_db if m.module_cls is nn.Linear]
    count = 0
    for dtype in (torch.float32, torch.float64):
        for training in (True, False):
            for sample in info.module_inputs_func(
                info, device="cpu", dtype=dtype, requires_grad=True, training=training
            ):
                args, kwargs = sample.constructor_input.args, sample.constructor_input.kwargs
                plain = nn.Linear(*args, **kwargs, dtype=dtype).train(training)
                ours = QuantSparseLinear(*args, **kwargs, dtype=dtype, bits=16).train(training)
                ours.load_state_dict(plain.state_dict())
                inputs = sample.forward_input
                expected = plain(*inputs.args, **inputs.kwargs)
                got = ours(*inputs.args, **inputs.kwargs)
                torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-3)
                got.sum().backward()
                assert ours.weight.grad.shape == plain.weight.shape
                count += 1
    assert count >= 12


@pytest.mark.parametrize("shape", [(12,), (1, 12), (2, 3, 5, 12), (0, 12), (577, 12)])
@pytest.mark.parametrize("masked", [False, True])
def test_int8_is_close_to_the_float_layer_at_any_leading_shape(shape, masked):
    torch.manual_seed(0)
    ours = layer(masked=masked)
    x = torch.randn(shape)
    expected = F.linear(x, ours.weight, ours.bias)
    got = ours(x)
    assert got.shape == expected.shape
    assert got.numel() == 0 or (got - expected).abs().max() < 0.05


@pytest.mark.parametrize("i,o", [(1, 1), (5, 7), (63, 1), (1, 63), (577, 5)])
@pytest.mark.parametrize("bits", [4, 8, 16])
def test_odd_sizes(i, o, bits):
    ours = QuantSparseLinear(i, o, bits=bits)
    x = torch.randn(3, i, requires_grad=True)
    ours(x).sum().backward()
    with use_backend("reference"):
        torch.testing.assert_close(ours(x), ours.pack()(x))


def test_is_a_linear_layer_with_its_state_dict():
    plain = nn.Linear(12, 8)
    ours = QuantSparseLinear(12, 8)
    assert isinstance(ours, nn.Linear) and list(ours.state_dict()) == ["weight", "bias"]
    ours.load_state_dict(plain.state_dict())
    nn.Linear(12, 8).load_state_dict(ours.state_dict())
    assert torch.equal(ours.weight, plain.weight) and (ours.in_features, ours.out_features) == (12, 8)


@pytest.mark.parametrize("settings", SETTINGS)
def test_any_variant_loads_a_plain_state_dict(settings):
    plain, ours = nn.Linear(12, 8), layer(masked=True, **settings)
    ours.load_state_dict(plain.state_dict())
    assert ours.mask is None and torch.equal(ours.weight, plain.weight)
    if ours.weight_scale is not None:
        limit = 2 ** (ours.bits - 1) - 1
        torch.testing.assert_close(ours.weight_scale.detach(), plain.weight.detach().abs().amax(1) / limit)


@pytest.mark.parametrize("settings", SETTINGS)
def test_state_dict_round_trip_with_mask_and_scales(settings):
    first = ready(layer(masked=True, **settings)).eval()
    second = layer(**settings)
    second.load_state_dict(first.state_dict())
    x = torch.randn(5, 12)
    assert torch.equal(first.mask, second.mask)
    assert_within_rounding(second.eval()(x), first(x), 12)


@pytest.mark.parametrize("settings", SETTINGS)
def test_settings_rebuild_the_layer(settings):
    first = ready(layer(masked=True, **settings)).eval()
    first.quantizing = False
    second = QuantSparseLinear.from_settings(first.settings())
    second.load_state_dict(first.state_dict())
    assert second.settings() == first.settings() and second.quantizing is False


def test_from_linear_shares_parameters_and_to_linear_does_not():
    plain = nn.Linear(12, 8).eval()
    ours = QuantSparseLinear.from_linear(plain, bits=4, pattern="4x4")
    assert ours.weight is plain.weight and ours.bias is plain.bias and not ours.training
    mask = torch.zeros(8, 12, dtype=torch.bool)
    ours.set_mask(mask)
    back = ours.to_linear()
    assert type(back) is nn.Linear and not back.weight.any() and back.weight is not ours.weight


def test_masked_weights_are_zero_and_get_no_update():
    ours = layer(masked=True)
    optimizer = torch.optim.SGD(ours.parameters(), lr=1.0)
    ours(torch.randn(6, 12)).square().sum().backward()
    optimizer.step()
    assert not ours.weight[~ours.mask].any() and ours.weight[ours.mask].all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes(dtype):
    ours = QuantSparseLinear(12, 8, dtype=dtype)
    x = torch.randn(3, 12, dtype=dtype, requires_grad=True)
    y = ours(x)
    y.sum().backward()
    assert y.dtype == x.grad.dtype == ours.weight.grad.dtype == dtype
    assert (y - F.linear(x, ours.weight, ours.bias)).abs().max() < 0.1


def test_autocast_is_obeyed():
    for ours in (layer(), layer(bits=None), layer(bits=None, masked=True), layer().pack()):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert ours(torch.randn(3, 12)).dtype == torch.bfloat16


def test_non_contiguous_input():
    ours, x = layer(), torch.randn(12, 5, 3)
    assert torch.equal(ours(x.transpose(0, 2)), ours(x.transpose(0, 2).contiguous()))


@pytest.mark.parametrize("settings", [{}, {"bits": 4}, {"bits": 16}, {"bits": None}, {"scale": "lsq"}])
@pytest.mark.parametrize("masked", [False, True])
def test_compile_without_graph_breaks(settings, masked):
    torch._dynamo.reset()
    ours = layer(masked=masked, **settings)
    x = torch.randn(3, 12)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    compiled(x).sum().backward()
    got = ours.weight.grad.clone()
    ours.weight.grad = None
    ours(x).sum().backward()
    torch.testing.assert_close(got, ours.weight.grad)
    packed = ours.pack()
    torch.testing.assert_close(torch.compile(packed, fullgraph=True, backend="aot_eager")(x), packed(x))


def test_export():
    x = torch.randn(3, 12)
    for module in (layer(masked=True).eval(), layer(masked=True).pack(), layer(bits=4).pack(), layer(bits=16).pack()):
        torch.testing.assert_close(torch.export.export(module, (x,)).module()(x), module(x))


@pytest.mark.parametrize("settings", SETTINGS)
def test_deepcopy_and_pickle(settings):
    ours = ready(layer(masked=True, **settings)).eval()
    x = torch.randn(3, 12)
    for copied in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours)), pickle.loads(pickle.dumps(ours.pack()))):
        torch.testing.assert_close(copied(x), ours(x))


def test_functional_call_and_per_sample_gradients():
    ours, x = layer(masked=True), torch.randn(5, 12)

    def loss(parameters, sample):
        return torch.func.functional_call(ours, parameters, (sample,)).square().sum()

    parameters = {k: v.detach() for k, v in ours.named_parameters()}
    grads = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)
    ours(x).square().sum().backward()
    torch.testing.assert_close(grads["weight"].sum(0), ours.weight.grad)


def test_quantization_can_start_late():
    ours = layer(masked=True)
    x = torch.randn(4, 12)
    quantized = ours(x)
    ours.quantizing = False
    assert_within_rounding(ours(x), F.linear(x, ours.masked_weight(), ours.bias), 12)
    ours.quantizing = True
    assert torch.equal(ours(x), quantized)


def test_static_activations_need_a_scale_first():
    ours = layer(activation="static").eval()
    with pytest.raises(InputError, match=r"no scale yet: train it for a step or call sparseq\.calibrate"):
        ours(torch.randn(3, 12))
    ours.train()(torch.full((1, 12), 2.0))
    ours(torch.full((1, 12), 1.0))
    assert ours.input_scale.item() == pytest.approx(2 / 127)
    assert torch.isfinite(ours.eval()(torch.full((1, 12), 9.0))).all()


def test_learned_scales_learn():
    """An outlier that no input meets makes the maximum a bad scale; LSQ finds a smaller one."""
    torch.manual_seed(0)
    plain = nn.Linear(12, 8)
    with torch.no_grad():
        plain.weight[:, 0] = 3
    ours = QuantSparseLinear.from_linear(plain, scale="lsq", bits=4)
    x = torch.randn(64, 12)
    x[:, 0] = 0
    target = plain(x).detach()
    start, optimizer, losses = ours.weight_scale.detach().clone(), torch.optim.Adam([ours.weight_scale], lr=1e-2), []
    for _ in range(100):
        loss = F.mse_loss(ours(x), target)
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.3 * losses[0] and (ours.weight_scale < start).all()


@pytest.mark.parametrize(
    "make,sentence",
    [
        (lambda: QuantSparseLinear(4, 4, bits=3), "bits is 3: it must be one of 4, 8, 16, None"),
        (lambda: QuantSparseLinear(4, 4, activation="x"), "activation is 'x'"),
        (lambda: QuantSparseLinear(4, 4, scale="x"), "scale is 'x'"),
        (lambda: QuantSparseLinear(4, 4, pattern="x"), "unknown sparsity pattern 'x'"),
        (
            lambda: QuantSparseLinear(4, 4).set_mask(torch.ones(4, 5, dtype=torch.bool)),
            r"not torch.bool of shape \(4, 5\)",
        ),
        (lambda: QuantSparseLinear(4, 4).set_mask(torch.ones(4, 4)), "a mask must be bool"),
        (lambda: QuantSparseLinear(4, 4).set_mask([[True] * 4] * 4), "a mask must be a tensor or None, not a list"),
        (lambda: QuantSparseLinear.from_linear(nn.Linear(2, 2), bit=4), "unknown setting 'bit'"),
    ],
)
def test_bad_input(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()


def test_a_learned_scale_that_went_negative_survives_reloading():
    first = ready(layer(activation="static", scale="lsq")).eval()
    with torch.no_grad():
        first.input_scale.neg_()
    second = layer(activation="static", scale="lsq").eval()
    second.load_state_dict(first.state_dict())
    x = torch.randn(3, 12)
    assert torch.equal(first(x), second(x)) and second.calibrated


def test_a_mask_is_the_layers_own():
    ours, mask = layer(), torch.rand(8, 12) > 0.5
    ours.set_mask(mask)
    kept = mask.sum()
    mask.zero_()
    assert ours.mask.sum() == kept
