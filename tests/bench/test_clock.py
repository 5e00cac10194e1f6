import inspect
import time

import pytest
import torch
from fake_cuda import FakeCuda

from bench.clock import MOST_SETS, CpuClock, CudaClock, first_line, in_turn
from bench.target import Target
from sparseq import InputError


def test_short_calls_are_timed_by_replaying_a_graph():
    cuda = FakeCuda()
    times = CudaClock(cuda).alternate({"fast": [cuda.work(1e-5)], "slow": [cuda.work(2e-5)] * 3}, rounds=7)
    assert times.how == {"fast": "graph", "slow": "graph"} and cuda.captures == 2 and not times.notes
    assert times.comparison.time("fast").median == pytest.approx(1e-5)
    assert times.comparison.ratio("slow", "fast").median == pytest.approx(2)
    assert set(times.call_seconds) == {"fast", "slow"}
    row = times.as_dict([("slow", "fast")])
    assert row["how"]["fast"] == "graph" and row["rounds"] == 7 and "notes" not in row


def test_every_set_of_inputs_takes_its_turn():
    cuda, seen = FakeCuda(), []
    calls = [lambda i=i: (seen.append(i), cuda.work(1e-4)()) for i in range(5)]
    CudaClock(cuda).alternate({"a": calls}, rounds=1)
    assert seen[: 4 * 5] == [0, 1, 2, 3, 4] * 4


def test_long_calls_are_timed_between_events_without_a_graph():
    cuda = FakeCuda()
    times = CudaClock(cuda).alternate({"long": [cuda.work(0.2)]})
    assert times.how == {"long": "events"} and cuda.captures == 0 and not times.call_seconds
    assert times.comparison.time("long").median == pytest.approx(0.2)
    assert len(times.comparison.samples["long"]) == CudaClock.ROUNDS


def test_calls_that_wait_for_the_device_are_not_captured():
    cuda = FakeCuda()
    times = CudaClock(cuda).alternate({"waits": [cuda.work(1e-5, waits=True)], "not": [cuda.work(1e-5)]}, rounds=3)
    assert times.how == {"waits": "events", "not": "graph"} and cuda.captures == 1 and cuda.mode == 0
    assert times.notes == {"waits": "no graph: RuntimeError: called a synchronizing CUDA operation"}
    assert times.as_dict([])["notes"] == times.notes
    assert times.comparison.time("waits").median == pytest.approx(1e-5)


def test_a_capture_that_breaks_off_leaves_the_clock_usable():
    cuda = FakeCuda()
    cuda.set_sync_debug_mode = lambda mode: None
    clock = CudaClock(cuda)
    times = clock.alternate({"waits": [cuda.work(1e-5, waits=True)]}, rounds=3)
    assert cuda.stream_now == "default" and times.how == {"waits": "events"}
    assert times.notes["waits"] == "no graph: RuntimeError: operation not permitted when stream is capturing"
    assert clock.alternate({"fine": [cuda.work(1e-5)]}, rounds=3).how == {"fine": "graph"}


def test_inputs_exceed_the_cache_as_far_as_is_sensible():
    clock = CudaClock(FakeCuda(cache=1000))
    assert [clock.sets(size) for size in (0, 1, 100, 999, 5000)] == [MOST_SETS, MOST_SETS, 20, 3, 1]


def test_peak_memory_is_what_a_call_adds():
    cuda = FakeCuda()
    cuda.allocated = 100

    def call():
        cuda.peak = cuda.allocated + 40

    assert CudaClock(cuda).peak_bytes(call) == 40


def test_the_stand_in_has_the_signatures_of_torch_cuda():
    fake = FakeCuda()
    names = [name for name in dir(FakeCuda) if not name.startswith("_") and hasattr(torch.cuda, name)]
    assert len(names) >= 9
    for name in [*names, "Event", "CUDAGraph"]:
        real, mine = (getattr(module, name) for module in (torch.cuda, fake))
        real = real.__init__ if name == "graph" else real.__new__ if inspect.isclass(real) else real
        expected = [p for p in inspect.signature(real).parameters if p not in ("self", "cls", "kwargs")]
        assert list(inspect.signature(mine).parameters) == expected[: len(inspect.signature(mine).parameters)], name
    for method in ("record", "synchronize", "elapsed_time"):
        expected = list(inspect.signature(getattr(torch.cuda.Event, method)).parameters)
        assert list(inspect.signature(getattr(fake.Event, method)).parameters) == expected
    assert "L2_cache_size" in torch.cuda._CudaDeviceProperties.__annotations__ or not torch.cuda.is_available()


def test_a_cpu_is_timed_by_the_wall():
    clock, seen = CpuClock(turns=2), []
    assert clock.sets(1) == 2 and clock.peak_bytes(print) is None and clock.synchronize() is None
    times = clock.alternate({"a": [lambda: seen.append(0), lambda: seen.append(1)]}, rounds=1)
    assert seen == [0] and times.how == {"a": "wall"} and "how" not in times.as_dict([])
    clock.SECONDS_A_CASE = 1e-6
    assert len(clock.alternate({"a": [list]}).comparison.samples["a"]) == CpuClock.ROUNDS[0]


def test_one_thread_is_timed_by_itself(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    clock = Target("cpu", False).clock()
    asleep = clock.alternate({"sleeps": [lambda: time.sleep(0.02)]}, rounds=2)
    assert clock.name == "time.thread_time" and asleep.how == {"sleeps": "thread"} and "how" not in asleep.as_dict([])
    assert asleep.comparison.time("sleeps").median < 0.01
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert Target("cpu", False).clock().name == "time.perf_counter"


def test_turns():
    seen = []
    call = in_turn([lambda: seen.append(0), lambda: seen.append(1)])
    for _ in range(5):
        call()
    assert seen == [0, 1, 0, 1, 0] and in_turn([print]) is print


def test_an_error_is_named_in_a_line():
    assert first_line(ValueError("one\ntwo")) == "ValueError: one" and first_line(KeyError()) == "KeyError"
    assert len(first_line(ValueError("x" * 900))) == 160


def test_targets(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cpu = Target.of(None, False)
    assert cpu == Target("cpu", False) and not cpu.gpu and cpu.dtype == torch.float32 and cpu.clock().sets(9) == 1
    with pytest.raises(InputError, match="finds no GPU"):
        Target.of("cuda", False)
    with pytest.raises(InputError, match="is not one of"):
        Target.of("tpu", False)
    monkeypatch.setattr("bench.target.why_not", lambda backend, device: "a reason")
    with pytest.raises(InputError, match="cannot run so: a reason"):
        Target.of("interpreter", False)
    monkeypatch.setattr("bench.target.why_not", lambda backend, device: None)
    pretended = Target.of("interpreter", False)
    assert pretended.gpu and pretended.smallest and pretended.device.type == "cpu" and pretended.clock().sets(9) == 2
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    found = Target.of(None, True)
    assert found == Target("cuda", True) and found.device.type == "cuda" and found.dtype == torch.bfloat16
    monkeypatch.setattr("bench.target.CudaClock", lambda: "a GPU's clock")
    assert found.clock() == "a GPU's clock"
