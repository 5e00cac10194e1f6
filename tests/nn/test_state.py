"""What a layer knows of itself follows its tensors, however values came into them: averages, copies, casts, loads."""

import copy
import io
import pickle
import warnings

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from sparseq import InputError, calibrate, convert, pack
from sparseq.nn import QuantSparseLinear

STATIC = [{"activation": "static"}, {"activation": "static", "scale": "lsq"}]
X = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))


def net(**settings):
    torch.manual_seed(0)
    return convert(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)), **settings)


def by_average(source):
    average = AveragedModel(net(**settings_of(source)))
    average.update_parameters(source)
    return average.module


def by_copy(source):
    other = net(**settings_of(source))
    with torch.no_grad():
        for mine, theirs in zip(other.state_dict().values(), source.state_dict().values(), strict=True):
            mine.copy_(theirs)
    return other


def by_loading(source, assign=False):
    other = net(**settings_of(source))
    other.load_state_dict(copy.deepcopy(source.state_dict()), assign=assign)
    return other


def by_meta(source):
    other = net(**settings_of(source)).to("meta").to_empty(device="cpu")
    other.load_state_dict(source.state_dict())
    return other


def by_file(source):
    file = io.BytesIO()
    torch.save(source.state_dict(), file)
    file.seek(0)
    other = net(**settings_of(source))
    other.load_state_dict(torch.load(file))
    return other


def by_data(source):
    other = net(**settings_of(source))
    for mine, theirs in zip(
        [*other.parameters(), *other.buffers()], [*source.parameters(), *source.buffers()], strict=True
    ):
        mine.data = theirs.data.clone()
    return other


def settings_of(model):
    return {"activation": model[0].settings_.activation, "scale": model[0].settings_.scale}


WAYS = [
    by_average,
    by_copy,
    by_loading,
    lambda m: by_loading(m, assign=True),
    by_meta,
    by_file,
    by_data,
    copy.deepcopy,
    lambda m: pickle.loads(pickle.dumps(m)),
]


@pytest.mark.parametrize("settings", STATIC, ids=str)
@pytest.mark.parametrize("way", WAYS, ids=lambda w: getattr(w, "__name__", "way"))
def test_a_scale_counts_however_it_came(settings, way):
    source = calibrate(net(**settings), [{"input": X}]).eval()
    filled = way(source).eval()
    assert all(layer.calibrated for layer in (filled[0], filled[2]))
    assert torch.equal(filled(X), source(X))
    assert torch.equal(pack(filled)(X), pack(source)(X))


@pytest.mark.parametrize("settings", STATIC, ids=str)
def test_a_scale_that_is_taken_away_is_missed(settings):
    model = calibrate(net(**settings), [{"input": X}]).eval()
    model(X)
    with torch.no_grad():
        model[2].input_scale.zero_()
    assert not model[2].calibrated
    with pytest.raises(InputError, match="no scale yet"):
        model(X)
    with pytest.raises(InputError, match="'2' cannot be packed"):
        pack(model)


def test_functional_call_reads_the_scale_that_it_is_given():
    layer = QuantSparseLinear(8, 4, activation="static").eval()
    given = {"input_scale": torch.full((1,), X.abs().amax().item() / 127)}
    y = torch.func.functional_call(layer, given, (X,))
    assert (y - nn.functional.linear(X, layer.weight, layer.bias)).abs().max() < 0.05
    with pytest.raises(InputError, match="no scale yet"):
        layer(X)
    calibrate(layer, [{"input": X}])
    with pytest.raises(InputError, match="no scale yet"):
        torch.func.functional_call(layer, {"input_scale": torch.zeros(1)}, (X,))
    both = torch.stack([layer.input_scale, torch.zeros(1)])
    one, none = torch.func.vmap(lambda s: torch.func.functional_call(layer, {"input_scale": s}, (X,)))(both)
    assert torch.equal(one, layer(X)) and none.isnan().all()


@pytest.mark.parametrize("settings", STATIC, ids=str)
def test_a_filled_copy_compiles_and_exports(settings):
    source = calibrate(net(**settings), [{"input": X}]).eval()
    torch._dynamo.reset()
    compiled = torch.compile(by_copy(source).eval(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(X), source(X))
    torch.testing.assert_close(torch.export.export(by_copy(source).eval(), (X,)).module()(X), source(X))
    torch._dynamo.reset()
    empty = torch.compile(net(**settings).eval()[0], fullgraph=True, backend="aot_eager")
    assert empty(X).isnan().all(), "a graph without a scale must not give numbers"


@pytest.mark.parametrize("settings", STATIC, ids=str)
def test_a_compiled_training_step_sets_the_scale(settings):
    torch._dynamo.reset()
    plain, layer = (QuantSparseLinear(8, 4, **settings) for _ in range(2))
    layer.load_state_dict(plain.state_dict())
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for factor in (1.0, 2.0):
        torch.testing.assert_close(compiled(factor * X), plain(factor * X))
    torch.testing.assert_close(layer.input_scale, plain.input_scale)
    assert layer.calibrated


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("settings", STATIC, ids=str)
def test_a_bad_batch_leaves_no_trace_in_a_scale(settings, value):
    bad = X.clone()
    bad[2, 3] = value
    model = calibrate(net(**settings), [{"input": X}])
    before = model[0].input_scale.detach().clone()
    with pytest.raises(InputError, match=r"calibration batch 1 .* input of layer '0'"):
        calibrate(model, [{"input": X / 2}, {"input": bad}])
    assert torch.equal(model[0].input_scale, before)
    fresh = net(**settings)
    assert fresh[0](bad).isnan().any() and not fresh[0].calibrated, "what is no number must not pass for one"
    fresh(X)
    kept = fresh[0].input_scale.detach().clone()
    if "scale" not in settings:
        assert fresh[0](bad).isnan().any()
    assert torch.equal(fresh[0].input_scale, kept) and torch.isfinite(fresh.eval()(X)).all()


@pytest.mark.parametrize("training", [False, True])
def test_the_first_batch_can_be_the_bad_one(training):
    model = net(activation="static").train(training)
    with pytest.raises(InputError, match=r"calibration batch 0 .* input of layer '0'"):
        calibrate(model, [{"input": X / 0}])
    assert not model[0].calibrated and model.training == training


def test_the_layer_that_a_bad_value_first_reaches_is_named():
    class Late(nn.Module):
        def forward(self, x):
            return x / 0

    model = convert(nn.Sequential(nn.Linear(8, 8), Late(), nn.Linear(8, 8)), activation="static")
    with pytest.raises(InputError, match=r"layer '2'"):
        calibrate(model, [{"input": X}])
    with pytest.raises(InputError, match="no batches"):
        calibrate(model, iter(()))


def test_what_a_layer_refuses_does_not_change_its_scale():
    layer = QuantSparseLinear(8, 4, activation="static")
    layer(X)
    before = layer.input_scale.clone()
    for wrong in (torch.full((2, 7), 1e6), torch.full((2, 8), 10**6), [[1e6] * 8], None, torch.tensor(1e6)):
        with pytest.raises(Exception):  # noqa: B017 - which one is the ops' affair
            layer(wrong)
        assert torch.equal(layer.input_scale, before)


@pytest.mark.parametrize("how", [{}, {"multi_avg_fn": get_ema_multi_avg_fn(0.5)}], ids=["swa", "ema"])
@pytest.mark.parametrize("static", [False, True])
def test_an_average_from_before_pruning_gets_the_masks(how, static):
    model = net(activation="static" if static else "dynamic")
    model(X)
    average = AveragedModel(model, **how)
    average.update_parameters(model)
    mask = torch.rand(8, 8) > 0.5
    model[0].set_mask(mask)
    for _ in range(3):
        average.update_parameters(model)
    mine = average.module[0]
    assert torch.equal(mine.mask, mask) and not mine.masked_weight()[~mask].any()
    assert average.module[2].mask is None
    eager = average.eval()(X)
    torch.testing.assert_close(pack(average.module)(X), eager)
    model[0].set_mask(torch.rand(8, 8) > 0.7)
    average.update_parameters(model)
    assert torch.equal(mine.mask, model[0].mask)


def test_a_state_with_or_without_masks_loads_into_either():
    dense, pruned = net(), net(sparsity=0.5)
    average = AveragedModel(dense)
    average.module.load_state_dict(pruned.state_dict())
    assert torch.equal(average.module[0].mask, pruned[0].mask)
    average.module.load_state_dict(net().state_dict())
    assert average.module[0].mask is None


@pytest.mark.parametrize("assign", [False, True])
def test_what_is_loaded_has_the_types_that_a_layer_works_with(assign):
    settings = {"activation": "static", "scale": "lsq", "sparsity": 0.5}
    state = calibrate(net(**settings), [{"input": X}]).half().state_dict()
    half = {n: t.half() if n.endswith(("step_size", "input_scale")) else t.clone() for n, t in state.items()}
    model = net(**settings)
    model.load_state_dict(half, assign=assign)
    assert {model[0].step_size.dtype, model[0].input_scale.dtype} == {torch.float32}
    assert half["0.input_scale"].dtype == torch.float16, "the caller's dictionary was changed"
    with pytest.raises(InputError, match=r"0\.mask in the state dict is torch\.float16, and a mask is bool"):
        model.load_state_dict({n: t.half() for n, t in state.items()}, assign=assign)


def test_a_copys_mask_is_its_own():
    model = net(sparsity=0.5)
    other = copy.deepcopy(model)
    before = other[0].mask.clone()
    model[0].set_mask(torch.zeros(8, 8, dtype=torch.bool))
    assert torch.equal(other[0].mask, before) and other[0].weight.any()


def test_one_process_alone_is_not_warned_of_others():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        QuantSparseLinear(8, 4, activation="static")(X)
