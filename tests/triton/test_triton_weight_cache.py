"""What is known of a weight is found by the weight, and goes with it."""

import gc
import threading

import torch

from sparseq_kernels.triton.runtime.weight_cache import WeightCache


def test_a_value_is_found_by_the_tensor_itself():
    cache: WeightCache[str] = WeightCache()
    weight, equal = torch.ones(2), torch.ones(2)
    assert cache.get(weight) is None and cache.get(None) is None
    cache.set(weight, "first")
    assert cache.get(weight) == "first" and cache.get(equal) is None and cache.get(weight.detach()) is None
    cache.set(weight, "second")
    assert cache.get(weight) == "second" and len(cache) == 1


def test_a_value_goes_with_its_weight():
    cache: WeightCache[int] = WeightCache()
    for number in range(100):
        cache.set(torch.ones(1), number)
    weight = torch.ones(1)
    cache.set(weight, 100)
    gc.collect()
    assert len(cache) == 1 and cache.get(weight) == 100


def test_threads_that_set_values_at_once():
    cache: WeightCache[int] = WeightCache()
    weights = [torch.ones(1) for _ in range(50)]
    start = threading.Barrier(4)

    def work(number):
        start.wait()
        for weight in weights:
            cache.set(weight, number)
            assert cache.get(weight) in range(4)
            cache.set(torch.ones(1), number)  # One that ends at once.

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()
    assert len(cache) == 50
