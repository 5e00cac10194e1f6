import re
import threading
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from cpu_backends import NATIVE

from sparseq_kernels import InputError, int8_linear, quantize_rows, use_backend
from sparseq_kernels.cpu import encoder as encoder_module
from sparseq_kernels.cpu import native_weight
from sparseq_kernels.cpu.encoder import NativeEncoder
from sparseq_kernels.encoder import EncoderLayer, EncoderLinear, EncoderNorm

pytestmark = [
    pytest.mark.skipif(not NATIVE, reason="there is no native code here"),
    pytest.mark.usefixtures("every_set", "threads"),
]


class Made:
    """Layers of random numbers."""

    def __init__(self, hidden, wide, count=1, activation="gelu", bias=True, static=False, seed=0):
        self.random = torch.Generator().manual_seed(seed)
        self.bias, self.static = bias, static
        self.layers = [
            EncoderLayer(
                self.linear(3 * hidden, hidden),
                self.linear(hidden, hidden),
                self.norm(hidden),
                self.linear(wide, hidden, activation),
                self.linear(hidden, wide),
                self.norm(hidden),
            )
            for _ in range(count)
        ]

    def draw(self, *shape):
        return torch.randn(shape, generator=self.random)

    def linear(self, N, K, activation="none"):
        weight, scale = quantize_rows(self.draw(N, K) / K**0.5)
        static = torch.tensor([0.03]) if self.static else None
        return EncoderLinear(weight, scale, self.draw(N) / 10 if self.bias else None, static, activation)

    def norm(self, features):
        return EncoderNorm(1 + self.draw(features) / 10, self.draw(features) / 10, 1e-12)


def by_ops(layers, heads, x, lengths):
    """The hidden states after each layer, by the reference of each op and torch's attention."""

    def linear(x, by):
        return int8_linear(x, by.weight, by.weight_scale, by.bias, by.input_scale, by.activation)

    def norm(x, by):
        return F.layer_norm(x, by.weight.shape, by.weight, by.bias, by.eps)

    states, hidden = [], x.shape[1]
    with use_backend("reference"):
        for layer in layers:
            found = []
            for part in linear(x, layer.qkv).split(list(lengths)):
                q, k, v = (one.view(len(part), heads, hidden // heads).transpose(0, 1) for one in part.split(hidden, 1))
                found.append(F.scaled_dot_product_attention(q, k, v).transpose(0, 1).reshape(len(part), hidden))
            x = norm(x + linear(torch.cat(found), layer.out), layer.attention_norm)
            x = norm(x + linear(linear(x, layer.up), layer.down), layer.output_norm)
            states.append(x)
    return torch.stack(states)


def check(found, right):
    """Where a sum of another order moves a value from one integer to the next, a row differs by parts of a thousand."""
    assert found.shape == right.shape
    if not found.numel():
        return
    errors = (found - right).norm(dim=-1) / right.norm(dim=-1)
    assert errors.median() < 1e-5 and errors.max() < 1e-2, errors


@pytest.mark.parametrize(
    "hidden,wide,heads", [(64, 128, 2), (20, 33, 1), (60, 100, 5), (36, 7, 4), (48, 96, 48), (130, 260, 2)]
)
@pytest.mark.parametrize("lengths", [[1], [7], [17], [5, 1, 33], [0, 3, 0], [3] * 40, [200, 2]], ids=str)
def test_one_layer_is_that_of_the_ops(hidden, wide, heads, lengths):
    made = Made(hidden, wide)
    x = made.draw(sum(lengths), hidden)
    before, encoder = x.clone(), NativeEncoder(made.layers, heads)
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        check(encoder(x, lengths), by_ops(made.layers, heads, x, lengths)[-1])
    assert torch.equal(x, before)


def pruned(linear, kept, block, seed):
    """Without all but about the part `kept` of its blocks."""
    (N, K), (rows, columns) = linear.weight.shape, block
    shape = (-(-N // rows), -(-K // columns))
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < kept
    mask = mask.repeat_interleave(rows, 0).repeat_interleave(columns, 1)[:N, :K]
    return replace(linear, weight=linear.weight * mask)


@pytest.mark.parametrize("hidden,wide,heads", [(64, 128, 2), (60, 98, 5), (18, 35, 1)])
@pytest.mark.parametrize("kept", [0.0, 0.2, 0.6])
@pytest.mark.parametrize("block", [(4, 4), (1, 4), (8, 4), (1, 1)], ids=str)
def test_a_pruned_weight_in_blocks_gives_the_bits_of_one_in_panels(hidden, wide, heads, kept, block, monkeypatch):
    made = Made(hidden, wide)
    layer = made.layers[0]
    names = ("qkv", "out", "up", "down")
    layers = [replace(layer, **{name: pruned(getattr(layer, name), kept, block, 3) for name in names})]
    for lengths in ([33, 5, 40], [3], [1] * 20):
        x, found = made.draw(sum(lengths), hidden), []
        for up_to in (-1.0, 1.0):
            monkeypatch.setattr(native_weight, "BLOCKS_UP_TO", up_to)
            encoder = NativeEncoder(layers, heads)
            for threads in (1, 3):
                torch.set_num_threads(threads)
                found.append(encoder(x, lengths))
        assert all(torch.equal(one, found[0]) for one in found)
        check(found[0], by_ops(layers, heads, x, lengths)[-1])


def test_pruned_weights_take_blocks_and_dense_ones_panels():
    layer = Made(64, 128).layers[0]
    layers = [replace(layer, qkv=pruned(layer.qkv, 0.2, (4, 4), 1), up=pruned(layer.up, 0.9, (4, 4), 1))]
    assert NativeEncoder(layers, 2).in_blocks == (("qkv",),)


@pytest.mark.parametrize(
    "settings", [{"activation": "relu"}, {"bias": False}, {"static": True}, {"activation": "none"}], ids=str
)
def test_other_layers(settings):
    made = Made(48, 80, **settings)
    x = made.draw(30, 48)
    check(NativeEncoder(made.layers, 4)(x, [10, 20]), by_ops(made.layers, 4, x, [10, 20])[-1])


def test_any_number_of_threads_gives_the_same_bits():
    made = Made(64, 96, count=2)
    encoder, found = NativeEncoder(made.layers, 4), set()
    x = made.draw(77, 64)
    for threads in (1, 2, 3, 7):
        torch.set_num_threads(threads)
        found.add(encoder(x, [40, 30, 7]).numpy().tobytes())
    assert len(found) == 1


def test_the_states_after_each_layer():
    made = Made(64, 96, count=3)
    x, lengths = made.draw(50, 64), [20, 1, 29]
    for threads in (1, 2):
        torch.set_num_threads(threads)
        states = torch.empty(3, 50, 64)
        last = NativeEncoder(made.layers, 4)(x, lengths, states)
        assert torch.equal(last, states[-1])
        check(states, by_ops(made.layers, 4, x, lengths))


def test_sequences_do_not_touch_one_another():
    made = Made(64, 96, count=2)
    encoder, x = NativeEncoder(made.layers, 4), made.draw(30, 64)
    before = encoder(x, [10, 10, 10])
    x[13, 5] = float("nan")
    after = encoder(x, [10, 10, 10])
    assert torch.equal(after[:10], before[:10]) and torch.equal(after[20:], before[20:])
    assert after[10:20].isnan().all()


@pytest.mark.parametrize("payload", [0x7FC00000, 0x7FC00001, 0x7FC00180, 0x7F800001], ids=hex)
def test_every_nan_is_seen(payload):
    made = Made(32, 64)
    layer = made.layers[0]
    bias = layer.qkv.bias.clone()
    bias[:32] = torch.tensor([payload], dtype=torch.int32).view(torch.float32)
    layers = [replace(layer, qkv=replace(layer.qkv, bias=bias))]
    assert NativeEncoder(layers, 2)(made.draw(20, 32), [20]).isnan().all()


def test_it_has_no_part_in_autograd():
    made = Made(32, 64)
    layer = made.layers[0]
    trained = replace(layer, qkv=replace(layer.qkv, bias=torch.nn.Parameter(layer.qkv.bias)))
    x = made.draw(5, 32).requires_grad_()
    found = NativeEncoder([trained], 2)(x, [5])
    assert not found.requires_grad and torch.equal(found, NativeEncoder([layer], 2)(x.detach(), [5]))


def test_large_scores_overflow_nowhere():
    made = Made(32, 32)
    layer = made.layers[0]
    large = replace(layer.qkv, weight_scale=layer.qkv.weight_scale * 1e4)
    layers, x = [replace(layer, qkv=large)], made.draw(20, 32)
    found = NativeEncoder(layers, 2)(x, [20])
    assert found.isfinite().all()
    check(found, by_ops(layers, 2, x, [20])[-1])


def test_threads_that_call_at_once():
    made = Made(64, 96, count=2)
    encoder, xs = NativeEncoder(made.layers, 4), [made.draw(40, 64) for _ in range(4)]
    right, found = [encoder(x, [40]) for x in xs], [None] * 4

    def run(number):
        found[number] = [encoder(xs[number], [40]) for _ in range(10)]

    threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(one, right[number]) for number in range(4) for one in found[number])


@pytest.mark.parametrize(
    "change,sentence",
    [
        (lambda layer: replace(layer, out=layer.up), "layer 0's out must have an int8 weight of shape"),
        (lambda layer: replace(layer, down=replace(layer.down, bias=torch.ones(3))), "0's down must have a scale"),
        (lambda layer: replace(layer, up=replace(layer.up, activation="silu")), "activations none, relu, gelu, not"),
        (lambda layer: replace(layer, qkv=replace(layer.qkv, weight=layer.qkv.weight.int())), "0's qkv must have"),
        (lambda layer: replace(layer, out=replace(layer.out, input_scale=torch.zeros(1))), "positive static scale"),
        (lambda layer: replace(layer, out=replace(layer.out, bias=torch.ones(32, device="meta"))), "on the CPU"),
        (lambda layer: replace(layer, output_norm=Made(5, 5).norm(5)), "layer 0's LayerNorm must be of 32 features"),
    ],
)  # fmt: skip
def test_layers_that_do_not_fit_are_refused(change, sentence):
    with pytest.raises(InputError, match=sentence):
        NativeEncoder([change(Made(32, 64).layers[0])], 2)


def test_other_input_is_refused():
    made = Made(32, 64)
    encoder = NativeEncoder(made.layers, 2)
    for x, lengths in (
        (made.draw(5, 32), [4]),
        (made.draw(5, 16), [5]),
        (made.draw(5, 32).double(), [5]),
        (made.draw(4, 32), [5, -1]),
    ):
        with pytest.raises(InputError, match="encoder: x must be fp32 on the CPU, of shape"):
            encoder(x, lengths)
    for states in (torch.empty(2, 5, 32), torch.empty(1, 5, 32).double(), torch.empty(1, 32, 5).mT):
        with pytest.raises(InputError, match="states must be contiguous fp32 on the CPU"):
            encoder(made.draw(5, 32), [5], states)
    with pytest.raises(InputError, match="32 features cannot be shared by 3 heads"):
        NativeEncoder(made.layers, 3)
    with pytest.raises(InputError, match="at least one layer"):
        NativeEncoder([], 1)


@pytest.mark.parametrize("hidden,heads", [(64, 2), (60, 5), (36, 4), (48, 48), (130, 2)])
@pytest.mark.parametrize("lengths", [[1], [2, 7], [16, 33]], ids=str)
def test_attention_in_bf16_is_near_that_in_fp32(hidden, heads, lengths, every_set, monkeypatch):
    """Its own error is that of operands with 8 bits; and it is not fp32 under another name."""
    if every_set.startswith("native emulated"):
        monkeypatch.setattr(encoder_module, "has_avx512_bf16", lambda: True)
    made = Made(hidden, 48)
    encoder, x = NativeEncoder(made.layers, heads), made.draw(sum(lengths), hidden)
    if (reason := encoder_module.why_no_bf16_attention()) is not None:
        with pytest.raises(InputError, match=f"attention cannot multiply in bf16: {re.escape(reason)}"):
            encoder(x, lengths, bf16_attention=True)
        return
    exact, found = (encoder(x, lengths, bf16_attention=on) for on in (False, True))
    errors = (found - exact).norm(dim=-1) / exact.norm(dim=-1)
    assert 0 < errors.max() < 2e-2
    x[0, 3] = float("nan")
    assert encoder(x, lengths, bf16_attention=True)[: lengths[0]].isnan().all()
