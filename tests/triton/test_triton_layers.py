"""The layers on Triton's kernels: trained, compiled, exported, packed; what a step saves and what autocast asks for."""

import copy
import io

import pytest
import torch
from gpu_or_interpreter import DEVICE, randn, same
from masks import make_mask
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

import sparseq
from sparseq.nn import QuantEmbedding, QuantSparseLinear, use_sparse_kernels
from sparseq_kernels import backend, use_backend
from sparseq_kernels.block_index import BlockIndex

pytestmark = pytest.mark.usefixtures("on_triton")


SETTINGS = [{}, {"bits": 4}, {"bits": 16}, {"scale": "lsq"}, {"scale": "lsq", "activation": "static"}]


def layer_and_input(masked=False, **settings):
    layer = QuantSparseLinear(24, 12, **settings).to(DEVICE)
    if masked:
        layer.set_mask(torch.rand(12, 24, device=DEVICE) > 0.5)
    return layer, randn(2, 5, 24).requires_grad_()


def gradients(layer, x, out):
    wanted = [x, *(p for p in layer.parameters())]
    return torch.autograd.grad(out.square().sum(), wanted)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_a_training_step_is_the_references(settings, masked):
    layer, x = layer_and_input(masked, **settings)
    layer(x)  # calibrates a static scale
    found = layer(x)
    found_grads = gradients(layer, x, found)
    with use_backend("reference"):
        expected = layer(x)
        expected_grads = gradients(layer, x, expected)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(found_grads, expected_grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_packing_keeps_every_bit(settings):
    layer, x = layer_and_input(True, **settings)
    layer(x)
    layer.eval()
    packed = sparseq.pack(nn.Sequential(layer))[0]
    assert same(packed(x.detach()), layer(x).detach())


def test_compiled_without_a_break():
    layer, x = layer_and_input(True)
    torch._dynamo.reset()
    out = torch.compile(layer, fullgraph=True, backend="aot_eager")(x)
    grads = gradients(layer, x, out)
    eager = layer(x)
    assert same(out.detach(), eager.detach())
    for ours, theirs in zip(grads, gradients(layer, x, eager), strict=True):
        torch.testing.assert_close(ours, theirs)
    packed = sparseq.pack(nn.Sequential(layer.eval()))[0]
    assert same(torch.compile(packed, fullgraph=True, backend="aot_eager")(x.detach()), packed(x.detach()))


def op_of(packed, x):
    """The op that a packed layer multiplies by."""
    with Listed() as seen:
        packed(x)
    [name] = seen.names
    return name.removeprefix("sparseq::")


def is_held_dense(packed):
    """Whether a packed layer of a sparse format holds the expanded copy."""
    return any(buffer.shape == (packed.out_features, packed.in_features) for buffer in packed.buffers())


@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "16x32", "4x4"])
def test_a_pruned_layer_packs_compiles_and_exports(pattern):
    layer, x = QuantSparseLinear(64, 32, pattern=pattern).to(DEVICE), randn(2, 5, 64)
    layer.set_mask(torch.ops.sparseq.magnitude_mask([layer.weight.detach()], 0.5, pattern)[0])
    packed, right = sparseq.pack(nn.Sequential(layer.eval()))[0], layer(x).detach()
    assert packed.format != "dense" and op_of(packed, x) == "int8_linear" and same(packed(x), right)
    use_sparse_kernels(packed)
    # Blocks of 4x4 are too small for the matrix units, and are expanded.
    assert (op_of(packed, x) == "int8_linear") == (pattern == "4x4") == is_held_dense(packed)
    assert same(packed(x), right)
    torch._dynamo.reset()
    assert same(torch.compile(packed, fullgraph=True, backend="aot_eager")(x), right)
    assert same(torch.export.export(packed, (x,)).module()(x), right)
    again = type(packed).from_settings(packed.settings()).to(DEVICE)
    again.load_state_dict(packed.state_dict())
    assert same(again(x), right)
    use_sparse_kernels(again)
    assert same(again(x), right) and same(copy.deepcopy(packed)(x), right)


def tiled_layer(**settings):
    """A layer whose mask keeps few tiles, and its input."""
    layer = QuantSparseLinear(130, 192, **settings).to(DEVICE)
    layer.set_mask(make_mask(192, 130, "thin", 0.2))
    assert layer.mask_block_index() is not None
    return layer, randn(2, 5, 130).requires_grad_()


class Listed(TorchDispatchMode):
    """Notes for each of this library's ops whether it got lists of tiles. Ops inside a backward are none of them."""

    def __init__(self):
        super().__init__()
        self.ops = []
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "sparseq":
            self.names.append(func.name().partition(".")[0])
            self.ops.append(any(isinstance(a, list) and len(a) == 7 for a in args))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("settings", [*SETTINGS, {"bits": None}], ids=str)
def test_a_training_step_by_tiles_is_the_references(settings):
    layer, x = tiled_layer(**settings)
    layer(x)
    found = layer(x)
    found_grads = gradients(layer, x, found)
    with use_backend("reference"):
        expected = layer(x)
        expected_grads = gradients(layer, x, expected)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for ours, theirs in zip(found_grads, expected_grads, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    with Listed() as seen:
        gradients(layer, x, layer(x))
    assert seen.ops and all(seen.ops)


@pytest.mark.parametrize("settings", [{}, {"bits": None}], ids=str)
def test_tiles_compiled_without_a_break_and_again_for_no_new_mask(settings):
    layer, x = tiled_layer(**settings)
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for seed in range(3):
        layer.set_mask(make_mask(192, 130, "tiles", 0.2, seed))
        with torch._dynamo.config.patch(error_on_recompile=seed > 1):
            out = compiled(x)
        grads = gradients(layer, x, out)
        eager = layer(x)
        assert same(out.detach(), eager.detach())
        for ours, theirs in zip(grads, gradients(layer, x, eager), strict=True):
            torch.testing.assert_close(ours, theirs)


def test_tiles_follow_the_mask():
    layer, x = tiled_layer(bits=None)

    def lists_are_the_masks(layer):
        expected = BlockIndex.from_mask(layer.mask).tensors()
        return all(torch.equal(a, b) for a, b in zip(layer.mask_block_index(), expected, strict=True))

    assert lists_are_the_masks(layer)
    saved = io.BytesIO()
    torch.save(layer, saved)
    saved.seek(0)
    again = QuantSparseLinear(130, 192, bits=None).to(DEVICE)
    again.load_state_dict(layer.state_dict())
    restored = QuantSparseLinear.from_settings(layer.settings()).to(DEVICE)
    restored.load_state_dict(layer.state_dict(), assign=True)
    for other in (copy.deepcopy(layer), torch.load(saved, weights_only=False), again, restored, layer.to(DEVICE)):
        assert lists_are_the_masks(other)
        assert same(other(x).detach(), layer(x).detach())
    assert list(layer.state_dict()) == ["weight", "bias", "mask"]
    layer.set_mask(make_mask(192, 130, "tiles", 0.2, seed=7))
    assert lists_are_the_masks(layer)
    other = make_mask(192, 130, "tiles", 0.2, seed=8)
    found = torch.func.functional_call(layer, {"mask": other}, (x,))
    with use_backend("reference"):
        torch.testing.assert_close(found, torch.func.functional_call(layer, {"mask": other}, (x,)))
    layer.load_state_dict(again.state_dict())
    assert lists_are_the_masks(layer)
    layer.set_mask(make_mask(192, 130, "unstructured"))
    assert layer.mask_block_index() is None  # There are weights in every tile.
    layer.load_state_dict(nn.Linear(130, 192).state_dict())
    assert layer.mask is None and layer.mask_block_index() is None


def test_tiles_follow_a_mask_that_is_overwritten_in_place():
    layer, x = tiled_layer(bits=None)
    layer(x)
    other = make_mask(192, 130, "tiles", 0.2, seed=9)
    with torch.no_grad():
        layer.mask.detach().copy_(other)  # as torch.optim.swa_utils.AveragedModel copies buffers
    found = layer(x)
    expected = BlockIndex.from_mask(other).tensors()
    assert all(torch.equal(a, b) for a, b in zip(layer.mask_block_index(), expected, strict=True))
    with use_backend("reference"):
        torch.testing.assert_close(found, layer(x))


def test_an_embedding_lists_no_tiles():
    layer = QuantEmbedding(130, 192).to(DEVICE)
    layer.set_mask(make_mask(130, 192, "tiles", 0.2))
    assert layer.mask_block_index() is None


def test_exported_with_tiles():
    layer, x = tiled_layer()
    layer, x = layer.eval(), x.detach()
    assert same(torch.export.export(layer, (x,)).module()(x), layer(x).detach())


def test_large_blocks_are_multiplied_as_stored_where_that_is_faster(monkeypatch):
    monkeypatch.setattr("sparseq.nn.packed_linear.LEAST_ROWS", 8)
    layer = QuantSparseLinear(256, 128, pattern="64x64").to(DEVICE)
    mask = torch.zeros(128, 256, dtype=torch.bool, device=DEVICE)
    mask[64:, 128:192] = True
    layer.set_mask(mask)
    packed = sparseq.pack(nn.Sequential(layer.eval()))[0]
    assert is_held_dense(packed)
    for rows in (7, 8):
        x = randn(rows, 256)
        assert same(packed(x), layer(x).detach())
        assert op_of(packed, x) == ("int8_linear" if rows < 8 else "block_sparse_int8_linear")
    assert op_of(use_sparse_kernels(packed, False), x) == "int8_linear" and is_held_dense(packed)
    assert op_of(use_sparse_kernels(packed, True), x) == "block_sparse_int8_linear" and not is_held_dense(packed)


def test_exported():
    layer, x = layer_and_input()
    layer, x = layer.eval(), x.detach()
    for module in (layer, sparseq.pack(nn.Sequential(layer))[0]):
        assert same(torch.export.export(module, (x,)).module()(x), module(x))


def test_an_embedding_in_training_and_packed():
    layer = QuantEmbedding(30, 12).to(DEVICE)
    indices = torch.tensor([[0, 29, 7], [7, 1, 2]], device=DEVICE)
    out = layer(indices)
    out.square().sum().backward()
    with use_backend("reference"):
        expected = layer(indices)
    assert same(out.detach(), expected.detach()) and layer.weight.grad is not None
    packed = sparseq.pack(nn.Sequential(layer.eval()))[0]
    assert same(packed(indices), out.detach())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_obeyed(dtype):
    layer, x = layer_and_input()
    with torch.autocast(DEVICE, dtype=dtype):
        out = layer(x)
        packed = sparseq.pack(nn.Sequential(layer.eval()))[0](x.detach())
    assert out.dtype == packed.dtype == dtype
    out.sum().backward()
    assert x.grad.dtype == torch.float32 and layer.weight.grad.dtype == torch.float32


def test_a_step_saves_inputs_and_scales_and_nothing_else():
    layer, x = layer_and_input()
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        layer(x)
    own = {layer.weight.data_ptr(), x.data_ptr()}
    others = [t for t in saved if t.numel() and t.data_ptr() not in own]
    assert sorted(t.numel() for t in others) == [10, 12]  # a scale for each row of x and each output


def test_the_backend_in_force_is_triton():
    assert backend(DEVICE) == "triton"
