"""What hangs on a layer when it is converted: carried over, or refused in one sentence before anything is swapped."""

import copy
import pickle
import types
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from sparseq import InputError, convert, pack
from sparseq.nn import QuantEmbedding, QuantSparseLinear, named_layers
from sparseq.nn.attached import HOOKS, OWN

X = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))


def lazily(model):
    model[1] = nn.LazyLinear(4)


def replaced_forward(model):
    model[1].forward = types.MethodType(lambda self, x: x[..., :4], model[1])


def accelerated(model):
    model[1]._hf_hook = object()
    model[1]._old_forward = model[1].forward
    model[1].forward = partial(model[1].forward)


class Doubled(nn.Module):
    def forward(self, x):
        return 2 * x


def adapted(model):
    kind = type("Linear", (nn.Module,), {"__module__": "peft.tuners.lora.layer"})
    wrapper = kind()
    wrapper.base_layer, wrapper.lora_A = model[1], nn.ModuleDict({"default": nn.Linear(8, 2)})
    model[1] = wrapper


REFUSED = {
    "old weight norm": (lambda m: torch.nn.utils.weight_norm(m[1]), "remove_weight_norm"),
    "old spectral norm": (lambda m: torch.nn.utils.spectral_norm(m[1]), "remove_spectral_norm"),
    "weight norm": (lambda m: parametrizations.weight_norm(m[1]), "remove_parametrizations"),
    "spectral norm": (lambda m: parametrizations.spectral_norm(m[1]), "remove_parametrizations"),
    "orthogonal": (lambda m: parametrizations.orthogonal(m[1]), "remove_parametrizations"),
    "parametrized bias": (lambda m: parametrize.register_parametrization(m[1], "bias", Doubled()), "parametrization"),
    "pruned bias": (lambda m: prune.l1_unstructured(m[1], "bias", 0.5), r"prune\.remove\(layer, 'bias'\)"),
    "parameter": (lambda m: m[1].register_parameter("gain", nn.Parameter(torch.ones(1))), "parameter 'gain'"),
    "buffer": (lambda m: m[1].register_buffer("count", torch.ones(1)), "buffer 'count'"),
    "module": (lambda m: m[1].add_module("extra", nn.ReLU()), "module 'extra'"),
    "forward": (replaced_forward, "has a forward of its own"),
    "method": (lambda m: setattr(m[1], "extra_repr", lambda: "x"), "has a extra_repr of its own"),
    "accelerate": (accelerated, r"remove_hook_from_module\(model, recurse=True\)"),
    "compiled": (lambda m: m[1].compile(backend="eager"), "convert, then compile"),
    "lazy": (lazily, "run the model on one batch"),
    "name": (lambda m: setattr(m[1], "regrow", 3), "attribute 'regrow'"),
    "dtype": (lambda m: setattr(m[1], "weight", nn.Parameter(m[1].weight.detach().to(torch.complex64))), "complex64"),
    "adapter": (adapted, r"exclude=\('\*\.lora_A\.\*',\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_lost_is_refused_before_anything_is_swapped(case):
    spoil, sentence = REFUSED[case]
    model = net()
    spoil(model)
    before = dict(model.named_modules())
    with pytest.raises(InputError, match=sentence) as caught:
        convert(model, sparsity=0.5)
    assert "'1" in str(caught.value) and "\n" not in str(caught.value)
    assert not list(named_layers(model)) and dict(model.named_modules()) == before
    if case != "adapter":
        convert(model, exclude=("1",))
        assert [name for name, _ in named_layers(model)] == ["0"]
        with pytest.raises(InputError, match=sentence):
            QuantSparseLinear.from_linear(model[1])


REMEDIES = {
    "old weight norm": lambda m: torch.nn.utils.remove_weight_norm(m[1]),
    "old spectral norm": lambda m: torch.nn.utils.remove_spectral_norm(m[1]),
    "weight norm": lambda m: parametrize.remove_parametrizations(m[1], "weight"),
    "parametrized bias": lambda m: parametrize.remove_parametrizations(m[1], "bias"),
    "pruned bias": lambda m: prune.remove(m[1], "bias"),
    "parameter": lambda m: m[1].__delattr__("gain"),
    "forward": lambda m: m[1].__delattr__("forward"),
    "lazy": lambda m: m(X),
}


@pytest.mark.parametrize("case", REMEDIES)
def test_the_remedy_that_is_named_works(case):
    model = net()
    REFUSED[case][0](model)
    REMEDIES[case](model)
    expected = model(X)
    assert (convert(model, bits=16)(X) - expected).abs().max() < 1e-3
    assert len(list(named_layers(model))) == 2


def held(model, how):
    owner = nn.Module()
    owner.model = model
    how(owner, model[1])
    return owner


@pytest.mark.parametrize(
    "how",
    [
        lambda o, m: setattr(o, "kept", [m]),
        lambda o, m: setattr(o, "kept", (m,)),
        lambda o, m: setattr(o, "kept", {"a": m}),
        lambda o, m: setattr(o, "kept", m.forward),
        lambda o, m: vars(o).update(kept=m),
    ],
    ids=["list", "tuple", "dict", "method", "attribute"],
)
def test_a_layer_that_is_kept_where_torch_does_not_look_is_refused(how):
    owner = held(net(), how)
    with pytest.raises(InputError, match=r"layer 'model\.1' is also kept in 'kept'"):
        convert(owner)
    assert not list(named_layers(owner))
    assert [name for name, _ in named_layers(convert(owner, exclude="model.1"))] == ["model.0"]


def test_real_hooks_of_accelerate_are_refused_and_their_remedy_works():
    hooks = pytest.importorskip("accelerate.hooks")
    accelerate = pytest.importorskip("accelerate")
    model, expected = net(), net()(X)
    accelerate.cpu_offload(model, torch.device("cpu"))
    with pytest.raises(InputError, match="accelerate"):
        convert(model)
    assert not list(named_layers(model))
    hooks.remove_hook_from_module(model, recurse=True)
    assert (convert(model, bits=16)(X) - expected).abs().max() < 1e-3


def test_the_base_of_an_adapter_can_be_converted():
    model = net()
    adapted(model)
    convert(model, exclude=("*.lora_A.*",))
    assert isinstance(model[1].base_layer, QuantSparseLinear) and type(model[1].lora_A["default"]) is nn.Linear


def test_a_model_wrapped_for_several_processes_is_refused():
    wrapped = type("FullyShardedDataParallel", (nn.Sequential,), {})(net())
    with pytest.raises(InputError, match="convert the model first, then wrap it"):
        convert(wrapped)
    assert not list(named_layers(wrapped))


@pytest.mark.parametrize("make", [lambda: nn.Linear(8, 6), lambda: nn.Embedding(8, 6)], ids=["linear", "embedding"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_mask_of_torchs_own_pruning_is_taken_over(make, times):
    layer = make()
    for _ in range(times):
        prune.random_unstructured(layer, "weight", 0.5)
    calls = []
    layer.register_forward_pre_hook(lambda *_: calls.append(1))
    original, mask = layer.weight_orig, layer.weight_mask.bool()
    x = X if isinstance(layer, nn.Linear) else torch.arange(8)
    expected = layer(x)
    model = convert(nn.Sequential(layer), bits=None)
    assert model[0].weight is original and torch.equal(model[0].mask, mask)
    assert set(model.state_dict()) - {"0.bias"} == {"0.weight", "0.mask"}
    torch.testing.assert_close(model(x), expected)
    assert len(calls) == 2
    model(x).square().sum().backward()
    assert not model[0].weight.grad[~mask].any() and model[0].weight.grad[mask].any()
    torch.testing.assert_close(pack(model)(x), expected)


def hook_kinds():
    """(how to register a hook, what sets it off) of every public kind that this torch has."""

    def forward(model):
        model(X)

    def backward(model):
        model(X.clone().requires_grad_()).sum().backward()

    def save(model):
        model.state_dict()

    def load(model):
        model.load_state_dict(net().state_dict())

    return {
        "forward": (lambda m, f: m.register_forward_hook(f), forward),
        "forward always": (lambda m, f: m.register_forward_hook(f, always_call=True), forward),
        "forward kwargs": (lambda m, f: m.register_forward_hook(f, with_kwargs=True), forward),
        "forward pre": (lambda m, f: m.register_forward_pre_hook(f), forward),
        "forward pre kwargs": (lambda m, f: m.register_forward_pre_hook(f, with_kwargs=True), forward),
        "backward": (lambda m, f: m.register_full_backward_hook(f), backward),
        "backward pre": (lambda m, f: m.register_full_backward_pre_hook(f), backward),
        "state": (lambda m, f: m.register_state_dict_post_hook(f), save),
        "state pre": (lambda m, f: m.register_state_dict_pre_hook(f), save),
        "load pre": (lambda m, f: m.register_load_state_dict_pre_hook(f), load),
        "load post": (lambda m, f: m.register_load_state_dict_post_hook(f), load),
    }


@pytest.mark.parametrize("kind", hook_kinds())
def test_hooks_of_every_kind_go_with_the_layer(kind):
    register, trigger = hook_kinds()[kind]
    model, calls = net(), []
    handle = register(model[1], lambda module, *args, **kwargs: calls.append(module))
    convert(model)
    trigger(model)
    assert calls and all(module is model[1] for module in calls)
    again = convert(nn.Sequential(model[0].to_linear(), model[1].to_linear()))
    copies, calls[:] = copy.deepcopy(model), []
    trigger(again)
    assert calls and all(module is again[1] for module in calls), "to_linear keeps them as well"
    handle.remove()
    calls.clear()
    trigger(model)
    assert not calls, "the handle must still remove the hook"
    assert isinstance(copies[1], QuantSparseLinear)


def test_no_kind_of_hook_is_missing():
    named = {name for name in vars(nn.Linear(1, 1)) if "hook" in name}
    assert named == HOOKS and {"_forward_hooks", "_forward_pre_hooks", "_backward_hooks"} <= named


@pytest.mark.parametrize(
    "plain,ours", [(nn.Linear(2, 2), QuantSparseLinear(2, 2)), (nn.Embedding(2, 2), QuantEmbedding(2, 2))]
)
def test_the_attributes_of_our_own_are_known(plain, ours):
    ours.set_mask(torch.ones(2, 2, dtype=torch.bool))
    assert set(vars(ours)) - set(vars(plain)) <= OWN


def test_attributes_and_flags_go_with_the_layer():
    model = net()
    model[0].tag, model[0]._is_hf_initialized = {"a": 1}, True
    model[0].hello = types.MethodType(lambda self: self, model[0])
    model[0].weight.requires_grad_(False)
    model[1].eval()
    first = model[0].weight
    convert(model, scale="lsq", activation="static")
    assert model[0].tag == {"a": 1} and model[0]._is_hf_initialized and model[0].hello() is model[0]
    assert model[0].weight is first and not first.requires_grad and model[0].bias.requires_grad
    assert not model[0].step_size.requires_grad and not model[0].input_scale.requires_grad
    assert model[1].step_size.requires_grad and model[0].training and not model[1].training
    back = model[0].to_linear()
    assert back.tag == {"a": 1} and back.hello() is back and not hasattr(back, "settings_")
    assert not back.weight.requires_grad and back.bias.requires_grad
    table = QuantEmbedding.from_embedding(nn.Embedding(4, 4).requires_grad_(False))
    assert not table.to_embedding().weight.requires_grad
    pickle.loads(pickle.dumps(model[1]))


def test_a_subclass_is_not_taken_for_the_plain_layer():
    class Scaled(nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    with pytest.raises(InputError, match=r"Scaled is not exactly an nn\.Linear"):
        QuantSparseLinear.from_linear(Scaled(4, 4))
    with pytest.raises(InputError, match=r"call to_linear\(\)"):
        QuantSparseLinear.from_linear(QuantSparseLinear(4, 4))
    model = nn.Sequential(nn.Linear(4, 4), Scaled(4, 4))
    with pytest.warns(UserWarning, match=r"leaves 1 Scaled \(the first is '1'\) as they are"):
        convert(model)
    assert type(model[1]) is Scaled


def test_kinds_without_a_quantized_form_are_named():
    model = nn.ModuleDict({"a": nn.Conv2d(1, 1, 2), "b": nn.Conv2d(1, 1, 2), "c": nn.LSTM(2, 2), "d": nn.Linear(2, 2)})
    with pytest.warns(UserWarning, match=r"2 Conv2d and 1 LSTM \(the first is 'a'\)"):
        convert(copy.deepcopy(model))
    with pytest.raises(InputError, match=r"2 Conv2d and 1 LSTM .* have no quantized form"):
        convert(copy.deepcopy(model), include=(nn.Embedding,))


def test_tied_layers_stay_tied():
    model = nn.Sequential(*(nn.Linear(8, 8) for _ in range(4)))
    for layer in model[1:]:
        layer.weight = model[0].weight
    convert(model, scale="lsq", sparsity=0.5)
    for name in ("weight", "mask", "step_size"):
        assert len({id(getattr(layer, name)) for layer in model}) == 1
    assert len(list(model.parameters())) == 1 + 4 + 1
    assert model[0].mask.float().mean() == 0.5
