import time

import pytest
import torch
from torch import nn

from sparseq import InputError
from sparseq.timing import Comparison, Interval, alternate, time_batches, time_sentences


class Model(nn.Module):
    """Sleeps for each call, and keeps what it was called with."""

    def __init__(self, seconds=0.0):
        super().__init__()
        self.seconds, self.seen = seconds, []

    def forward(self, input_ids, attention_mask=None):
        time.sleep(self.seconds)
        self.seen.append((tuple(input_ids.shape), self.training, torch.is_inference_mode_enabled()))


def tokenizer(texts, **options):
    assert options == {"padding": True, "truncation": True, "return_tensors": "pt"}
    return {"input_ids": torch.zeros(len(texts), max(map(len, texts)), dtype=torch.long)}


def test_every_candidate_runs_once_a_round_in_turning_order():
    order = []
    found = alternate({name: (lambda name=name: order.append(name)) for name in "abc"}, 3, warmup=0)
    assert "".join(order) == "abcbcacab"
    assert {len(samples) for samples in found.samples.values()} == {3}


def test_short_calls_are_repeated_and_long_ones_are_not():
    calls, now = {"short": 0, "long": 0}, [0.0]

    def run(name, seconds):
        calls[name] += 1
        now[0] += seconds

    candidates = {"short": lambda: run("short", 1e-4), "long": lambda: run("long", 3e-3)}
    alternate(candidates, 2, shortest=2e-3, clock=lambda: now[0])
    assert calls["long"] == 3 and calls["short"] > 10


def test_a_candidate_rests_and_warms_up_before_each_sample(monkeypatch):
    rests, calls = [], []
    monkeypatch.setattr(time, "sleep", rests.append)
    alternate({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 2, warmup=0, settle=3e-3)
    assert rests == [3e-3] * 4
    # Until a millisecond is over, and once for the sample.
    assert all(calls.count(name) > 4 for name in "ab")


def test_what_warms_a_long_candidate_up_can_be_shorter(monkeypatch):
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    calls, rounds = [], []
    candidates = {name: (lambda name=name: calls.append(name)) for name in ("long", "other")}
    warm = {"long": lambda: calls.append("part")}
    alternate(
        candidates,
        2,
        warmup=1,
        shortest=0.0,
        settle=1e-3,
        settle_with=warm,
        each_round=lambda: rounds.append(len(calls)),
    )
    assert calls.count("long") == 3 and calls.count("part") > 1 and calls.count("other") > 4
    assert len(rounds) == 3 and rounds[0] == 0


def test_ratios_are_taken_within_rounds():
    # The machine slows down tenfold half way: the medians of times say nothing, the ratio is still 2.
    slow = [1.0, 1.0, 10.0, 10.0, 10.0]
    found = Comparison({"a": tuple(2 * s for s in slow), "b": tuple(slow)})
    ratio = found.ratio("a", "b")
    assert (ratio.median, ratio.low, ratio.high) == (2.0, 2.0, 2.0)
    row = found.as_dict([("a", "b")])
    assert row["rounds"] == 5 and row["ratios"][0]["of"] == "a" and row["seconds"]["b"]["median"] == 10.0


@pytest.mark.parametrize(("count", "rank"), [(1, 0), (5, 0), (6, 0), (9, 1), (15, 3), (31, 9)])
def test_the_interval_is_that_of_the_binomial_table(count, rank):
    found = Interval.of([float(i) for i in range(count)])
    assert (found.low, found.high, found.median) == (rank, count - 1 - rank, (count - 1) / 2)
    assert (found.confidence >= 0.95) == (count >= 6)


def test_the_clock_can_be_another():
    ticks = iter(range(1000))
    times = alternate({"one": lambda: None}, 3, shortest=0, clock=lambda: float(next(ticks)))
    assert times.samples["one"] == (1.0, 1.0, 1.0)


def test_time_is_of_a_unit_and_near_the_truth():
    found = alternate({"sleep": lambda: time.sleep(0.01)}, 3, units=5)
    assert 0.002 <= found.time("sleep").median < 0.02


@pytest.mark.parametrize(("candidates", "rounds"), [({}, 1), ({"a": print}, 0)])
def test_nothing_to_time_is_bad_input(candidates, rounds):
    with pytest.raises(InputError, match="a candidate and a round"):
        alternate(candidates, rounds)


def test_sentences_are_timed_by_batch_size_in_eval_mode_and_modes_come_back():
    fast, slow = Model().train(), Model(0.004).eval()
    texts = ["a", "bbb", "cc", "dd", "e"]
    found = time_sentences({"fast": fast, "slow": slow}, tokenizer, texts, batch_sizes=(1, 4), rounds=3)
    assert list(found) == [1, 4]
    assert slow.seen[:5] == [((1, len(t)), False, True) for t in texts] and slow.seen[-2:] == [
        ((4, 3), False, True),
        ((1, 1), False, True),
    ]
    assert fast.training and not slow.training
    # Five sentences are five calls one by one, and two in batches of four.
    assert found[1].time("slow").median >= 0.004 and found[4].time("slow").median >= 2 * 0.004 / 5
    assert found[1].ratio("slow", "fast").low > 1


def test_no_sentences_are_bad_input():
    with pytest.raises(InputError, match="no sentences"):
        time_batches({"model": Model()}, [], 1)
