"""Every way in which torch differentiates or transforms a call, for every op: right, or refused in a sentence."""

import functools

import pytest
import torch
from samples import CONSTANT, DIFFERENTIABLE, OPS, SAMPLES, TORCH, TYPED, call, cases, gradients, of_leaves, run
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint

import sparseq
from sparseq_kernels import InputError
from sparseq_kernels.registry import OPS as REGISTRY


def test_every_op_has_a_derivative_or_refuses_or_is_constant():
    refusing = {op.name for op in REGISTRY.values() if op.no_gradient is not None}
    assert sorted([*DIFFERENTIABLE, *refusing, *CONSTANT]) == sorted(REGISTRY)
    assert {case.values[0] for case in cases()} == set(DIFFERENTIABLE)
    assert all(op.backward_function and op.tangent_function for op in map(REGISTRY.get, DIFFERENTIABLE))


@pytest.mark.parametrize("op,args,places", cases())
@pytest.mark.parametrize("way", [TYPED, TORCH])
def test_forward_mode_is_the_transpose_of_reverse_mode(op, args, places, way):
    function, leaves = of_leaves(way, op, args, places)
    tangents = [torch.randn_like(leaf) for leaf in leaves]
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(leaf, t) for leaf, t in zip(leaves, tangents, strict=True)]
        y, tangent = forward_ad.unpack_dual(function(*duals))
    weights = torch.randn_like(y)
    expected = sum((g * t).sum() for g, t in zip(gradients(function, leaves, weights), tangents, strict=True))
    torch.testing.assert_close((tangent * weights).sum().float(), expected.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("op,args,places", cases())
def test_torch_func_agrees_with_autograd(op, args, places):
    function, leaves = of_leaves(TYPED, op, args, places)
    tangents = tuple(torch.randn_like(leaf) for leaf in leaves)
    with forward_ad.dual_level():
        duals = [forward_ad.make_dual(leaf, t) for leaf, t in zip(leaves, tangents, strict=True)]
        expected = forward_ad.unpack_dual(function(*duals)).tangent
    y, tangent = torch.func.jvp(function, leaves, tangents)
    torch.testing.assert_close(tangent, expected)
    weights = torch.randn_like(y)
    found = torch.func.vjp(function, *leaves)[1](weights)
    for one, right in zip(found, gradients(function, leaves, weights), strict=True):
        torch.testing.assert_close(one, right)
    every = tuple(range(len(leaves)))
    forward, reverse = torch.func.jacfwd(function, every)(*leaves), torch.func.jacrev(function, every)(*leaves)
    for one, right in zip(forward, reverse, strict=True):
        torch.testing.assert_close(one, right, rtol=1e-4, atol=1e-5, check_dtype=False)


@pytest.mark.parametrize("op,args,places", cases())
@pytest.mark.parametrize("way", [TYPED, TORCH])
def test_vmap_and_batched_gradients_are_those_one_by_one(op, args, places, way):
    function, leaves = of_leaves(way, op, args, places)
    first, rest = torch.stack([leaves[0], 2 * leaves[0]]), leaves[1:]
    found = torch.vmap(lambda x: function(x, *rest))(first)
    torch.testing.assert_close(found, torch.stack([function(x, *rest) for x in first]))
    held = [leaf.clone().requires_grad_() for leaf in leaves]
    y = function(*held)
    weights = torch.randn(3, *y.shape, dtype=y.dtype)
    batched = torch.autograd.grad(y, held, weights, is_grads_batched=True, retain_graph=True)
    single = [torch.autograd.grad(y, held, one, retain_graph=True) for one in weights]
    for one, right in zip(batched, map(torch.stack, zip(*single, strict=True)), strict=True):
        torch.testing.assert_close(one, right)


@pytest.mark.parametrize("op,args,places", cases())
@pytest.mark.parametrize("way", [TYPED, TORCH])
def test_second_derivatives_are_refused(op, args, places, way):
    function, leaves = of_leaves(way, op, args, places)

    def loss(x):
        return function(x, *leaves[1:]).square().sum()

    x = leaves[0].clone().requires_grad_()
    (grad,) = torch.autograd.grad(loss(x), x, create_graph=True)
    with pytest.raises(InputError, match="cannot be differentiated again"):
        grad.square().sum().backward()
    with pytest.raises(InputError, match="cannot be differentiated again"):
        # It differentiates twice.
        torch.autograd.functional.jvp(loss, leaves[0], torch.ones_like(leaves[0]))
    with forward_ad.dual_level(), pytest.raises(InputError, match="cannot be differentiated again"):
        dual = forward_ad.make_dual(leaves[0].clone().requires_grad_(), torch.ones_like(leaves[0]))
        torch.autograd.grad(loss(dual), dual)


@pytest.mark.parametrize("op,args,places", cases())
@pytest.mark.parametrize("outer", [torch.func.jacfwd, torch.func.jacrev])
@pytest.mark.parametrize("inner", [torch.func.jacfwd, torch.func.jacrev])
def test_second_derivatives_of_torch_func_are_refused(op, args, places, outer, inner):
    function, leaves = of_leaves(TYPED, op, args, places)
    twice = outer(inner(lambda x: function(x, *leaves[1:]).square().sum()))
    with pytest.raises(InputError, match="cannot be differentiated again"):
        twice(leaves[0])


@pytest.mark.parametrize("op,args,places", cases())
@pytest.mark.parametrize("transform", [torch.func.grad, torch.func.jacrev, torch.func.jacfwd])
def test_torch_func_is_told_that_it_must_go_by_the_typed_function(op, args, places, transform):
    function, leaves = of_leaves(TORCH, op, args, places)
    with pytest.raises(InputError, match=rf"or sparseq_kernels\.{op}$"):
        transform(lambda x: function(x, *leaves[1:]).sum())(leaves[0])


@pytest.mark.parametrize("op,args,places", cases())
@pytest.mark.parametrize("way", [TYPED, TORCH])
def test_checkpoints_hooks_and_anomaly_mode(op, args, places, way):
    function, leaves = of_leaves(way, op, args, places)
    weights = torch.randn_like(function(*leaves))
    expected = gradients(function, leaves, weights)
    held = [leaf.clone().requires_grad_() for leaf in leaves]
    checkpoint(function, *held, use_reentrant=True).backward(weights)
    found = [[leaf.grad for leaf in held]]
    found.append(gradients(functools.partial(checkpoint, function, use_reentrant=False), leaves, weights))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.numpy().copy(), torch.from_numpy):
        found.append(gradients(function, leaves, weights))
    with torch.autograd.graph.save_on_cpu():
        found.append(gradients(function, leaves, weights))
    with pytest.warns(UserWarning, match="Anomaly"), torch.autograd.detect_anomaly():
        found.append(gradients(function, leaves, weights))
    for one in found:
        for grad, right in zip(one, expected, strict=True):
            assert torch.equal(grad, right)
    with torch.inference_mode():
        inside = function(*[leaf.clone() for leaf in leaves])
    torch.testing.assert_close(inside.clone(), function(*leaves))
    traced = torch.jit.trace(function, leaves, check_trace=False)
    torch.testing.assert_close(traced(*[2 * leaf for leaf in leaves]), function(*[2 * leaf for leaf in leaves]))


def floats(op, sample):
    return [i for i, arg in enumerate(sample) if isinstance(arg, Tensor) and arg.is_floating_point()]


@pytest.mark.parametrize("op", [op for op in REGISTRY if op not in CONSTANT and not op.endswith("_backward")])
@pytest.mark.parametrize("way", [TYPED, TORCH])
def test_a_gradient_that_would_end_unseen_is_refused(op, way):
    """Of each floating argument either a gradient comes back, or the call is refused."""
    for sample in SAMPLES[op](torch.float32):
        for place in floats(op, sample):
            args = [arg.detach() if isinstance(arg, Tensor) else arg for arg in sample]
            args[place] = args[place].clone().requires_grad_()
            given = dict(zip(REGISTRY[op].names, REGISTRY[op].complete(tuple(args)), strict=True))
            allowed = REGISTRY[op].names[place] in REGISTRY[op].differentiable and given.get("output_scale") is None
            if allowed:
                (grad,) = torch.autograd.grad(run(way, op, args).sum(), args[place])
                assert grad.shape == args[place].shape and grad.dtype == args[place].dtype
                continue
            with pytest.raises(InputError, match="no gradient"):
                run(way, op, args)
            with torch.no_grad():
                run(way, op, args)
            with forward_ad.dual_level(), pytest.raises(InputError, match="no gradient"):
                args[place] = forward_ad.make_dual(args[place].detach(), torch.ones_like(args[place]))
                run(way, op, args)


def test_quantized_rows_are_constants():
    x = torch.randn(3, 6, requires_grad=True)
    assert not any(result.requires_grad for result in OPS.quantize_rows(x))
    assert not call("quantize_rows", x, 8).requires_grad


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_of_an_int8_product_is_that_of_the_dequantized_weight(static, dtype):
    x = (3 * torch.randn(2, 5, 8)).to(dtype).requires_grad_()
    weight, scale = torch.randint(-127, 128, (4, 8), dtype=torch.int8), torch.rand(4) / 100
    input_scale = torch.tensor([2 / 127]) if static else None
    y = call("int8_linear", x, weight, scale, None, input_scale, "none", None, None)
    grad = torch.randn(y.shape).to(dtype)
    (found,) = torch.autograd.grad(y, x, grad)
    expected = grad.double() @ (weight.double() * scale.double()[:, None])
    if static:
        assert (x.abs() > 2).any()
        expected = expected * (x.abs().double() <= 2)
    torch.testing.assert_close(found.double(), expected, rtol=2e-2 if dtype == torch.bfloat16 else 1e-5, atol=2e-2)


def test_an_adapter_below_a_packed_layer_is_trained():
    model = sparseq.pack(sparseq.convert(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))))
    adapter = nn.Linear(8, 8)
    model(adapter(torch.randn(3, 8))).square().sum().backward()
    assert adapter.weight.grad.abs().sum() > 0
