import pytest

from sparseq.errors import InputError
from sparseq.paired import PairedAnswers


def test_paired_answers_count_the_rows_that_one_alone_has_right():
    paired = PairedAnswers.of([True, True, False, True, False], [True, False, False, False, True])
    assert paired == PairedAnswers(5, 2, 1) and paired.lost == pytest.approx(0.2)
    differences = [0, 1, 0, 1, -1]
    variance = sum((d - 0.2) ** 2 for d in differences) / 5
    assert paired.standard_error == pytest.approx((variance / 5) ** 0.5)
    assert PairedAnswers.of([True], [True]).standard_error == 0
    with pytest.raises(InputError, match="the same rows of both models, not 1 and 2"):
        PairedAnswers.of([True], [True, False])
