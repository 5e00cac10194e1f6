"""What enters an encoder in native code: the tokens of a mask, embeddings."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from cpu_backends import NATIVE

from sparseq_kernels import InputError, quantize_rows
from sparseq_kernels.cpu.embeddings import NativeEmbeddings
from sparseq_kernels.cpu.tokens import Tokens
from sparseq_kernels.encoder import EmbeddingTable, EncoderEmbeddings, EncoderNorm
from sparseq_kernels.numerics import pack_int4, unpack_int4

pytestmark = [
    pytest.mark.skipif(not NATIVE, reason="there is no native code here"),
    pytest.mark.usefixtures("every_set", "threads"),
]
WORDS, TYPES, POSITIONS = 50, 3, 40


def table(rows, features, bits, random):
    values = torch.randn(rows, features, generator=random)
    if bits == 32:
        return EmbeddingTable(values)
    values, scale = quantize_rows(values, bits)
    return EmbeddingTable(pack_int4(values) if bits == 4 else values, scale)


def made(features=37, bits=(8, 8, 8), types=True, padding_idx=None, seed=0):
    """bits: of the tables of words, positions and types."""
    random = torch.Generator().manual_seed(seed)
    word, position, kind = (
        table(rows, features, one, random) for rows, one in zip((WORDS, POSITIONS, TYPES), bits, strict=True)
    )
    norm = EncoderNorm(*(torch.rand(features, generator=random) + 0.5 for _ in range(2)), 1e-12)
    return EncoderEmbeddings(word, position, kind if types else None, norm, padding_idx)


def draw(batch, length, high=WORDS, seed=1):
    return torch.randint(0, high, (batch, length), generator=torch.Generator().manual_seed(seed))


def numbers_of(ids, padding_idx):
    """As RoBERTa numbers tokens; from 0 without a padding_idx."""
    if padding_idx is None:
        return torch.arange(ids.shape[1]).expand_as(ids)
    kept = ids.ne(padding_idx).long()
    return kept.cumsum(1) * kept + padding_idx


def looked_up(of, indices, features, dtype):
    """Rows of a table, multiplied by their scales in this dtype."""
    values = of.values[indices]
    values = (unpack_int4(values, features) if of.bits == 4 else values).to(dtype)
    return values if of.scale is None else values * of.scale[indices].to(dtype).unsqueeze(-1)


def expected(by, ids, types=None):
    """In fp64, [batch, length, E]."""

    def rows(of, indices):
        return looked_up(of, indices, len(by.norm.weight), torch.float64)

    total = rows(by.word, ids) + rows(by.position, numbers_of(ids, by.padding_idx))
    if by.token_type is not None:
        total = total + rows(by.token_type, torch.zeros_like(ids) if types is None else types)
    norm = by.norm
    return F.layer_norm(total, norm.weight.shape, norm.weight.double(), norm.bias.double(), norm.eps)


def mask_of(*lengths, of):
    return (torch.arange(of) < torch.tensor(lengths).unsqueeze(1)).long()


def near(found, right):
    assert found.shape == right.shape and found.dtype == torch.float32
    assert float((found - right).abs().max()) < 4e-6


@pytest.mark.parametrize("features", [1, 7, 16, 37, 384])
@pytest.mark.parametrize("bits", [(8, 8, 8), (32, 32, 32), (8, 32, 8), (4, 4, 4), (4, 8, 32)])
@pytest.mark.parametrize("padding_idx", [None, 0, 1])
def test_embeddings(features, bits, padding_idx):
    by, ids = made(features, bits, padding_idx=padding_idx), draw(3, 11)
    ids[1, 4:] = ids[2, 2] = padding_idx or 0
    embed = NativeEmbeddings(by)
    for types in (None, draw(3, 11, TYPES)):
        # LayerNorm of few features is as exact as their differences are.
        right = expected(by, ids, types)
        if features > 1:
            near(embed(ids, types).view(3, 11, features), right)
        for mask in (mask_of(11, 4, 1, of=11), torch.tensor([[1, 0, 1, 1, 0] + [0] * 6]).expand(3, -1)):
            tokens = Tokens.of(mask, 3, 11)
            found = embed(ids, types, tokens)
            assert found.shape == (33, features) and tokens.count == int(mask.sum())
            near(found[: tokens.count], embed(ids, types).view(3, 11, -1)[mask.bool()])


def test_embeddings_without_types():
    by, ids = made(types=False), draw(2, 5)
    embed = NativeEmbeddings(by)
    near(embed(ids).view(2, 5, -1), expected(by, ids))
    assert embed(ids, torch.zeros_like(ids)) is None


@pytest.mark.parametrize("features", [64, 37])
@pytest.mark.parametrize("bits", [(8, 8, 8), (4, 8, 8), (4, 4, 4)])
def test_sums_are_those_of_torch_to_the_bit(features, bits):
    """Before LayerNorm, which this one leaves as it is but for the mean and the variance of each row."""
    by, ids, types = made(features, bits), draw(2, 9), draw(2, 9, TYPES)
    indices = ((by.word, ids), (by.token_type, types), (by.position, torch.arange(9).expand(2, -1)))
    word, kind, position = (looked_up(of, i, features, torch.float32) for of, i in indices)
    plain = EmbeddingTable((word + kind + position).view(-1, features))
    zeros = EmbeddingTable(torch.zeros(18, features))
    alone = NativeEmbeddings(replace(by, word=plain, position=zeros, token_type=None))
    assert torch.equal(alone(torch.arange(18).view(1, 18)), NativeEmbeddings(by)(ids, types))


def test_many_tokens_on_several_threads():
    by, ids = made(128), draw(30, 40)
    embed = NativeEmbeddings(by)
    torch.set_num_threads(1)
    alone = embed(ids)
    torch.set_num_threads(3)
    assert torch.equal(embed(ids), alone)
    near(alone.view(30, 40, -1), expected(by, ids))


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_indices_of_other_layouts(dtype):
    by, ids, types = made(), draw(6, 5), draw(6, 5, TYPES)
    embed = NativeEmbeddings(by)
    right = embed(ids.t().contiguous(), types.t().contiguous())
    assert torch.equal(embed(ids.to(dtype).t(), types.to(dtype).t()), right)


@pytest.mark.parametrize("padding_idx", [None, 1])
@pytest.mark.parametrize("at", [(0, 0), (1, 4)])
@pytest.mark.parametrize("value", [-1, WORDS, -(2**63), 2**63 - 1])
def test_an_index_in_no_row_is_never_read(value, at, padding_idx):
    embed, ids, types = NativeEmbeddings(made(padding_idx=padding_idx)), draw(2, 5), draw(2, 5, TYPES)
    tokens = Tokens.of(mask_of(5, 2, of=5), 2, 5)
    assert embed(ids, types, tokens) is not None
    wrong = ids.clone()
    wrong[at] = value
    assert embed(wrong, types, tokens) is None and embed(wrong) is None
    wrong = types.clone()
    wrong[at] = min(value, TYPES) if value > 0 else value
    assert embed(ids, wrong, tokens) is None


def test_a_position_in_no_row_is_never_read():
    embed = NativeEmbeddings(made())
    assert embed(draw(1, POSITIONS)) is not None and embed(draw(1, POSITIONS + 1)) is None
    counted = NativeEmbeddings(made(padding_idx=1))
    ids = torch.full((1, POSITIONS + 5), 7)
    assert counted(ids[:, : POSITIONS - 2]) is not None and counted(ids[:, : POSITIONS - 1]) is None
    ids[:, POSITIONS - 2 :] = 1
    assert counted(ids) is not None
    assert NativeEmbeddings(made(padding_idx=POSITIONS))(torch.full((1, 2), POSITIONS)) is None


def test_other_indices_are_left_to_the_caller():
    embed, ids = NativeEmbeddings(made()), draw(2, 5)
    for other in (ids.float(), ids.to(torch.int16), ids[0], ids.to("meta"), ids.to_sparse()):
        assert embed(other) is None
        assert embed(ids, other) is None
    assert embed(ids, ids[:, :4] % TYPES) is None
    with pytest.raises(InputError, match=r"ids must be of the tokens' shape \(3, 5\), not \(2, 5\)"):
        embed(ids, None, Tokens.of(None, 3, 5))


@pytest.mark.parametrize(
    "change,sentence",
    [
        (lambda by: replace(by, word=EmbeddingTable(by.word.values)), "the word table must be torch.float32 of shape"),
        (lambda by: replace(by, word=EmbeddingTable(torch.ones(0, 37))), "the word table must be torch.float32 of"),
        (lambda by: replace(by, position=EmbeddingTable(torch.ones(4, 5))), r"position table must be .*\[rows, 37\]"),
        (lambda by: replace(by, token_type=replace(by.token_type, scale=torch.ones(2))), "token_type table must have"),
        (lambda by: replace(by, word=replace(by.word, values=by.word.values.byte())), r"torch.uint8 of .*\[rows, 19\]"),
        (lambda by: replace(by, position=None), "there is no position table"),
        (lambda by: replace(by, norm=EncoderNorm(torch.ones(37), torch.ones(3), 0.0)), "LayerNorm must be of 37"),
        (lambda by: replace(by, norm=EncoderNorm(torch.ones(74)[::2], torch.ones(37), 0.0)), "must be contiguous"),
        (lambda by: replace(by, word=EmbeddingTable(torch.ones(3, 37, device="meta"))), "on the CPU"),
        (lambda by: replace(by, padding_idx=-1), "padding_idx must be an id, not -1"),
    ],
)
def test_tables_that_do_not_fit_are_refused(change, sentence):
    with pytest.raises(InputError, match=sentence):
        NativeEmbeddings(change(made()))


MASK = torch.tensor([[1, 0, 1, 1], [1, 0, 0, 0], [1, 1, 1, 1]])


@pytest.mark.parametrize(
    "dtype", [torch.int64, torch.bool, torch.uint8, torch.int8, torch.int32, torch.float16, torch.float32]
)
def test_the_tokens_of_a_mask(dtype):
    for mask in (MASK.to(dtype), MASK.t().contiguous().to(dtype).t()):
        tokens = Tokens.of(mask, 3, 4)
        assert (tokens.count, tokens.is_all) == (8, False)
        assert tokens._room[:4].tolist() == [0, 3, 4, 8]
        x = torch.randn(3, 4, 5)
        rows = tokens.gather(x)
        assert torch.equal(rows, x[MASK.bool()]) and rows.data_ptr() != x.data_ptr()
        whole = tokens.spread(rows)
        assert torch.equal(whole, x * MASK.unsqueeze(-1))
        room = torch.full((12, 5), 9.0)
        room[:8] = rows
        assert torch.equal(tokens.spread(room, room), whole) and torch.equal(room.view(3, 4, 5), whole)


def test_any_value_but_zero_keeps_a_token():
    mask = torch.tensor([[2.0, -0.5, float("nan"), 0.0, -0.0]])
    assert Tokens.of(mask, 1, 5).count == 3
    assert Tokens.of(torch.tensor([[256, 2**40, -1, 0]]), 1, 4).count == 3


def test_all_tokens():
    for mask in (None, torch.ones(3, 4), torch.ones(3, 4, dtype=torch.long)):
        tokens = Tokens.of(mask, 3, 4)
        assert tokens.is_all and tokens.count == 12 and tokens._room[:4].tolist() == [0, 4, 8, 12]
        x = torch.randn(3, 4, 2)
        assert torch.equal(tokens.spread(tokens.gather(x)), x)


@pytest.mark.parametrize("mask", [[[0, 1], [1, 1]], [[1, 1], [0, 0]]])
def test_a_sequence_that_begins_with_padding_has_no_tokens(mask):
    assert Tokens.of(torch.tensor(mask), 2, 2) is None
