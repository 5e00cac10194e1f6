import pytest

from sparseq_kernels import InputError, Pattern


@pytest.mark.parametrize(
    "text,kind,block,unit,highest",
    [
        ("unstructured", "unstructured", (1, 1), 1, 1),
        ("1x1", "unstructured", (1, 1), 1, 1),
        ("2:4", "n:m", (1, 4), 2, 0.5),
        ("4x4", "block", (4, 4), 16, 1),
        ("64x32", "block", (64, 32), 2048, 1),
    ],
)
def test_parse(text, kind, block, unit, highest):
    p = Pattern.parse(text)
    assert (p.kind, p.block, p.unit, p.max_sparsity) == (kind, block, unit, highest)
    assert Pattern.parse(str(p)) == p and Pattern.parse(p) is p


@pytest.mark.parametrize("text", ["", "0x4", "4x", "4:4", "-1x2", "2:4 ", "Unstructured", "4x4x4"])
def test_unknown(text):
    with pytest.raises(InputError, match="unknown sparsity pattern"):
        Pattern.parse(text)


def test_a_layer_that_is_not_divided_is_named():
    with pytest.raises(InputError, match=r"'encoder\.0', whose weight is 6 x 8 .* or skip such layers"):
        Pattern.parse("4x4").check((6, 8), "encoder.0")
