import pytest
import torch
from gpu_or_interpreter import DEVICE, FLOATS, both, randn
from hypothesis import given, settings
from hypothesis import strategies as st

import sparseq_kernels.triton.magnitude_mask as under_test
from sparseq_kernels import Pattern
from sparseq_kernels.numerics import pack_mask, unpack_mask
from sparseq_kernels.reference.magnitude_mask import magnitude_mask as reference
from sparseq_kernels.triton.magnitude_mask import magnitude_mask_bits

INF, NAN = float("inf"), float("nan")
# (shapes, pattern): one layer and several, whole bytes and not, rows shorter than a byte, none at all.
LISTS = [
    ([(5, 63)], "unstructured"),
    ([(16, 24), (0, 7), (7, 577), (3, 1), (4, 0)], "unstructured"),
    ([(8, 16), (24, 8)], "2:4"),
    ([(5, 21), (2, 3)], "1:3"),
    ([(3, 34)], "15:17"),
    ([(8, 24), (16, 8)], "4x4"),
    ([(9, 25), (3, 5)], "3x5"),
    ([(6, 8)], "1x4"),
    ([(40, 3)], "20x1"),
]


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    """In the interpreter, which takes as long for a tile whatever is in it."""
    if DEVICE == "cpu":
        monkeypatch.setattr(under_test, "VALUES", 256)
        monkeypatch.setattr(under_test, "TILES", 2)


def check(weights: list[torch.Tensor], sparsity: float, pattern: str) -> list[torch.Tensor]:
    expected = reference(weights, sparsity, pattern)
    masks, bits = magnitude_mask_bits(weights, sparsity, pattern)
    for want, mask, packed in zip(expected, masks, bits, strict=True):
        assert mask.dtype == torch.bool and torch.equal(mask, want)
        assert torch.equal(packed, pack_mask(want)) and torch.equal(unpack_mask(packed, want.shape[1]), want)
    return masks


def tied(weights: list[torch.Tensor]) -> list[torch.Tensor]:
    return [(2 * w).round() / 2 for w in weights]


@pytest.mark.parametrize("shapes,pattern", LISTS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_equals_the_reference(shapes, pattern, dtype):
    weights = [randn(*shape, seed=i, dtype=dtype) for i, shape in enumerate(shapes)]
    sparsity = 0.6 * Pattern.parse(pattern).max_sparsity
    check(weights, sparsity, pattern)
    expected, found = both("magnitude_mask", tied(weights), sparsity, pattern)
    assert all(torch.equal(*masks) for masks in zip(found, expected, strict=True))


@pytest.mark.parametrize("pattern,most", [("unstructured", 0.9999), ("2:4", 0.5), ("2x4", 0.9999)])
@pytest.mark.parametrize("share", [0.0, 1e-9, 0.02, 1.0])
def test_none_one_and_all(pattern, most, share):
    weights = [randn(4, 8), randn(2, 24, seed=1)]
    masks = check(weights, share * most, pattern)
    if share == 0:
        assert all(bool(mask.all()) for mask in masks)
    elif share == 1 and pattern != "2:4":
        assert not any(bool(mask.any()) for mask in masks)


@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "2x2"])
@pytest.mark.parametrize("dtype", FLOATS)
def test_zeros_the_smallest_the_largest_and_what_is_no_number(pattern, dtype):
    info = torch.finfo(dtype)
    # The interpreter makes other numbers of bf16's denormals.
    tiny = info.smallest_normal * (2 if DEVICE == "cpu" and dtype == torch.bfloat16 else 0.25)
    some = [0.0, -0.0, info.smallest_normal, tiny, -info.max, info.max, INF, -INF, NAN, -NAN, 1.0]
    choice = torch.randint(len(some), (12, 16), generator=torch.Generator().manual_seed(3))
    weight = torch.tensor(some, dtype=dtype)[choice].to(DEVICE)
    for sparsity in (0.1, 0.3, 0.45, *([] if pattern == "2:4" else [0.7, 0.85])):
        check([weight, weight.flip(0)], sparsity, pattern)


def test_every_nan_is_the_same():
    bits = torch.tensor([[0x7FC00055, -0x3FFF01, 0x7F800001, -1, 0x7FFFFFFF, 0x7F800000, 0, 1]], dtype=torch.int32)
    weight = bits.view(torch.float32).to(DEVICE)
    for dropped in range(1, 8):
        [mask] = check([weight], dropped / 8, "unstructured")
        assert mask.tolist()[0] == [place < 5 and place >= dropped - 3 for place in range(5)] + [
            dropped < 3,
            dropped < 1,
            dropped < 2,
        ]


@pytest.mark.parametrize("value", [0.0, 1.0, NAN])
@pytest.mark.parametrize("sparsity", [0.1, 0.5, 0.93])
def test_one_value_alone_is_taken_by_index(value, sparsity):
    weights = [torch.full((3, 1111), value, device=DEVICE), torch.full((70, 40), value, device=DEVICE)]
    flat = torch.cat([mask.flatten() for mask in check(weights, sparsity, "unstructured")])
    count = round(sparsity * len(flat))
    assert not flat[:count].any() and flat[count:].all()


def test_more_than_a_tile_and_a_chunk_hold():
    step = under_test.VALUES * under_test.TILES
    weights = [randn(1, step, seed=1), randn(1, step + 1, seed=2), randn(3, step // 2 - 1, seed=3)]
    for sparsity in (0.2, 0.5, 0.97):
        check(weights, sparsity, "unstructured")
        check(tied(weights), sparsity, "unstructured")


def test_few_and_many_left_of_a_tile():
    # With the first digits of most values alike, later ones are counted by tiles, and otherwise one by one.
    alike = 1 + randn(64, 64).abs() * 2**-14
    for weights in ([alike], [alike, randn(64, 64, seed=1)], [randn(64, 64, seed=1)]):
        check(weights, 0.5, "unstructured")


@pytest.mark.memcheck
def test_other_layouts():
    x = randn(16, 48)
    views = [x.t(), x[:, 4:20], x[::2], x[:, ::2], x[1:2].expand(8, 48), x.flatten()[3:43].reshape(4, 10)]
    for view in views:
        check([view, randn(8, 8)], 0.4, "unstructured")
    check([x.t(), x[:, 4:20]], 0.25, "2:4")
    check([x.t(), x[:, 4:20]], 0.4, "4x4")


def test_different_types_together():
    weights = [randn(8, 8, seed=i, dtype=dtype) for i, dtype in enumerate([*FLOATS, torch.float64])]
    for pattern, sparsity in [("unstructured", 0.4), ("2:4", 0.3), ("2x2", 0.5)]:
        check(weights, sparsity, pattern)
        check(weights[-1:], sparsity, pattern)


def test_sums_are_taken_in_one_order():
    # In any other order some of these blocks' sums are others in fp32, and the units have another rank.
    sizes = 2.0 ** torch.randint(-13, 13, (64, 64), generator=torch.Generator().manual_seed(5)).to(DEVICE)
    weight = randn(64, 64, seed=6) * sizes
    for pattern in ("8x8", "1x16", "16x1"):
        repeated = weight[:16, :16].repeat(4, 4)
        check([weight, repeated, repeated.flip(0).flip(1)], 0.5, pattern)
    check([weight, weight.flip(1)], 0.3, "4:16")


def test_a_row_too_long_for_32_bits_goes_to_the_reference(monkeypatch):
    monkeypatch.setattr(under_test, "LONGEST_ROW", 20)
    check([randn(4, 21), randn(4, 20)], 0.5, "unstructured")


def test_nothing_to_select():
    assert magnitude_mask_bits([], 0.5, "unstructured") == ([], [])
    check([randn(0, 8), randn(4, 0)], 0.5, "2:4")


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=4),
    st.sampled_from(["unstructured", "2:4", "1:4", "3:7", "4x4", "1x4", "3x2"]),
    st.floats(0, 0.999),
    st.booleans(),
    st.integers(0, 999),
    st.sampled_from(FLOATS),
)
def test_any_shapes_pattern_and_density(grids, pattern, share, with_ties, seed, dtype):
    parsed = Pattern.parse(pattern)
    rows, columns = parsed.block
    weights = [randn(a * rows, b * columns, seed=seed + i, dtype=dtype) for i, (a, b) in enumerate(grids)]
    check(tied(weights) if with_ties else weights, share * parsed.max_sparsity, pattern)
