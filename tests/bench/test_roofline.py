import json

import pytest
import torch

from bench.roofline import DATASHEET, Peaks, joined, linear_step, moves, work

PEAKS = Peaks(int8=1000.0, bf16=500.0, fp32=100.0, bandwidth=10.0)


def test_bytes_are_those_of_every_tensor_once():
    assert moves((3, torch.float32), (5, torch.bfloat16), (7, torch.int8)) == 3 * 4 + 5 * 2 + 7
    found = work([(100, torch.int8)], (torch.int8, 50.0))
    assert found.bytes == 100 and found.operations == {"int8": 100.0}


def test_the_floor_is_the_longer_of_arithmetic_and_memory():
    assert work([(10, torch.int8)], (torch.int8, 5000.0)).floor(PEAKS) == (10.0, "operations")
    assert work([(100, torch.int8)], (torch.int8, 5.0)).floor(PEAKS) == (10.0, "bytes")
    assert work([], (torch.int8, 500.0), (torch.float16, 500.0)).floor(PEAKS) == (1 + 2, "operations")


def test_phases_follow_one_another():
    parts = joined(work([(10, torch.int8)]), work([], (torch.float32, 500.0)))
    assert parts.floor(PEAKS) == (1 + 10, "operations") and parts.operations == {"fp32": 1000.0} and parts.bytes == 10


def test_a_training_step_has_three_products_and_reads_what_it_needs():
    step = linear_step(2, 3, 5, torch.int8, torch.bfloat16, torch.float32)
    assert step.operations == {"int8": 60.0, "bf16": 120.0}
    x, y, w, bias = 2 * 5 * 2, 2 * 3 * 2, 3 * 5 * 4, 3 * 4
    assert step.bytes == (x + w + bias + y) + (y + x + w + x + w + bias)


def test_a_row_says_what_part_of_which_floor_was_reached():
    known, ceilings = "NVIDIA H100 80GB HBM3", Peaks(1e15, 5e14, 5e13, 3e12)
    one = work([(3_350_000, torch.int8)])
    row = one.as_dict(2e-6, known, ceilings)
    assert row["datasheet"] == {"seconds": pytest.approx(1e-6), "bound": "bytes", "fraction": pytest.approx(0.5)}
    assert row["measured"]["fraction"] == pytest.approx(3.35e6 / 3e12 / 2e-6)
    unknown = one.as_dict(2e-6, "Some GPU", None)
    assert set(unknown) == {"operations", "bytes"} and json.dumps(row)


def test_no_datasheet_rate_is_out_of_proportion():
    for peaks in DATASHEET.values():
        assert peaks.int8 >= 1.9 * peaks.bf16 > peaks.fp32 > peaks.bandwidth
