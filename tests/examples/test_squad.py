"""The parts of question answering: where answers lie in tokens, which span is best, and SQuAD's metric."""

import numpy as np
import pytest

from examples.small import questions, tokenizer
from examples.squad import answer_tokens, best_answer, features, normalized, scores


@pytest.mark.parametrize(
    ("predicted", "answers", "exact", "f1"),
    [
        ("the Film!", ["a film"], 100.0, 100.0),
        ("red film", ["film"], 0.0, 100 * 2 / 3),
        ("film film", ["film"], 0.0, 100 * 2 / 3),
        ("story", ["film", "story"], 100.0, 100.0),
        ("", ["film"], 0.0, 0.0),
        ("the", [""], 100.0, 100.0),
    ],
)
def test_one_answer(predicted: str, answers: list[str], exact: float, f1: float) -> None:
    found = scores([predicted], [answers])
    assert found["exact_match"] == exact and found["f1"] == pytest.approx(f1)


def test_the_mean_over_questions() -> None:
    assert scores(["x", "y"], [["x"], ["z"]]) == {"exact_match": 50.0, "f1": 50.0}
    assert normalized("The  U.S.A., a place") == ["usa", "place"]


def test_answers_are_found_in_tokens_and_back() -> None:
    rows = questions(8)
    found = features(rows, tokenizer(), 32)
    for row, inputs in zip(rows, found, strict=True):
        first, last = inputs["start_positions"], inputs["end_positions"]
        assert 0 < first <= last
        start, end = np.zeros(32), np.zeros(32)
        start[first], end[last] = 1, 1
        assert best_answer(start, end, inputs["offsets"], row["context"]) == row["answers"]["text"][0]


def test_an_answer_that_is_cut_off_is_at_the_first_token() -> None:
    offsets = [[0, 0], [0, 3], [4, 8]]
    assert answer_tokens(offsets, 4, "film") == (2, 2)
    assert answer_tokens(offsets, 0, "the film") == (1, 2)
    assert answer_tokens(offsets, 4, "film and more") == (0, 0)
    assert answer_tokens(offsets, 20, "more") == (0, 0)
    assert best_answer(np.zeros(3), np.zeros(3), [[0, 0]] * 3, "text") == ""


def test_the_best_span_does_not_end_before_it_begins() -> None:
    offsets = [[0, 0], [0, 1], [2, 3], [4, 5]]
    start, end = np.array([9.0, 0.0, 1.0, 5.0]), np.array([9.0, 5.0, 2.0, -1.0])
    assert best_answer(start, end, offsets, "a b c") == "a"
