"""Stands in for torch.cuda where a clock is tested: a device whose time passes as its calls say, and whose every
function has the signature of torch's own."""

import time
from contextlib import contextmanager
from types import SimpleNamespace


class FakeCuda:
    """now: the device's seconds. Calls under test add to it by `work`; a replay adds what was captured."""

    def __init__(self, cache=1000):
        self.now, self.cache, self.stream_now, self.mode, self.capturing = 0.0, cache, "default", 0, None
        self.allocated = self.peak = 0
        self.synchronized = self.captures = 0
        fake = self

        class Event:
            def __init__(self, enable_timing=False, blocking=False, interprocess=False, external=False):
                assert enable_timing
                self.at = None

            def record(self, stream=None):
                self.at = fake.now

            def synchronize(self):
                assert self.at is not None

            def elapsed_time(self, end_event):
                return 1e3 * (end_event.at - self.at)

        class CUDAGraph:
            def __init__(self, keep_graph=False):
                self.seconds = None

            def replay(self):
                assert self.seconds is not None, "replayed before it was captured"
                fake.now += self.seconds

        self.Event, self.CUDAGraph = Event, CUDAGraph

    def work(self, seconds, waits=False):
        """A call that keeps the device for so long, and with `waits` the host until then."""

        def run():
            if waits and self.capturing is not None:
                self.capturing = None
                raise RuntimeError("operation not permitted when stream is capturing\nmore")
            if waits and self.mode == 2:
                raise RuntimeError("called a synchronizing CUDA operation")
            if self.capturing is not None:
                self.capturing += seconds
            else:
                self.now += seconds

        return run

    def Stream(self, device=None, priority=0):  # noqa: N802
        return SimpleNamespace()

    @contextmanager
    def stream(self, stream):
        before, self.stream_now = self.stream_now, stream
        try:
            yield
        finally:
            self.stream_now = before

    @contextmanager
    def graph(self, cuda_graph, pool=None, stream=None, capture_error_mode="global"):
        assert stream is not None and self.mode == 0
        before, self.stream_now = self.stream_now, stream
        self.capturing, self.captures = 0.0, self.captures + 1
        # As in torch, a capture that breaks off ends with an error of its own, and leaves its stream the current one.
        yield
        cuda_graph.seconds, self.capturing, self.stream_now = self.capturing, None, before

    def synchronize(self, device=None):
        assert self.capturing is None
        self.synchronized += 1

    def current_device(self):
        return 0

    def get_device_properties(self, device=None):
        return SimpleNamespace(L2_cache_size=self.cache)

    def get_sync_debug_mode(self):
        return self.mode

    def set_sync_debug_mode(self, debug_mode):
        self.mode = {"default": 0, "warn": 1, "error": 2}.get(debug_mode, debug_mode)

    def memory_allocated(self, device=None):
        return self.allocated

    def max_memory_allocated(self, device=None):
        return self.peak

    def reset_peak_memory_stats(self, device=None):
        self.peak = self.allocated


class WallCuda(FakeCuda):
    """Its time is the wall's, and calls are what really runs."""

    now = property(lambda self: time.perf_counter(), lambda self, value: None)

    def get_device_properties(self, device=None):
        return SimpleNamespace(L2_cache_size=1 << 20, multi_processor_count=132, total_memory=80 << 30)
