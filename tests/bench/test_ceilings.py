"""The rates that are measured on a machine, by which the roofline is drawn."""

import json

import torch

from bench import ceilings
from bench.ceilings import Ceilings, measured
from bench.clock import CpuClock
from bench.roofline import Peaks
from bench.target import Target

PEAKS = Peaks(int8=4.0, bf16=3.0, fp32=2.0, bandwidth=1.0)


def test_ceilings_are_measured_and_what_cannot_run_is_named(monkeypatch):
    clock, target = CpuClock(), Target("cpu", True)
    found, rates = measured(clock, target)
    assert found is not None and rates["bandwidth"] == found.peaks.bandwidth > 0
    assert found.peaks.int8 == rates["int8"] > 0 and next(iter(found.bandwidths)) == ceilings.CPU_LEAST_BYTES

    def absent(*unused):
        raise RuntimeError("not on this device\nmore")

    monkeypatch.setattr(torch, "_int_mm", absent)
    monkeypatch.setattr(ceilings, "why_not_int_mm", lambda: None)
    found, rates = measured(clock, target)
    assert found is None and rates["no_int8"] == "not on this device" and rates["bf16"] > 0


def test_less_memory_is_not_slower():
    bandwidths = list(measured(CpuClock(), Target("cpu", True))[0].bandwidths.values())
    assert bandwidths == sorted(bandwidths, reverse=True)


def test_a_case_is_held_against_the_memory_that_holds_its_data():
    found = Ceilings(PEAKS, {100: 30.0, 1000: 20.0, 10000: 10.0})
    assert [found.at(size).bandwidth for size in (1, 100, 999, 1000, 10**6)] == [30.0, 30.0, 30.0, 20.0, 10.0]
    assert found.at(5).int8 == 4.0 and Ceilings(PEAKS).at(5) == PEAKS


def test_the_command_writes_the_rates(monkeypatch, tmp_path):
    monkeypatch.setenv("SPARSEQ_BENCH", "ci")
    assert ceilings.main(["--device", "cpu", "--out", str(tmp_path / "ceilings.json")]) == 0
    assert json.loads((tmp_path / "ceilings.json").read_text())["bandwidth"] > 0
