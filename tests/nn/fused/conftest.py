import pytest
import torch

from sparseq.nn.fused import one_call
from sparseq.nn.fused.pooler import Pooler
from sparseq_kernels.cpu import native_weight
from sparseq_kernels.cpu.embeddings import NativeEmbeddings


@pytest.fixture(params=["one call", pytest.param("by ops", marks=pytest.mark.slow)], autouse=True)
def way(request, monkeypatch):
    """Every test on both ways of a fused encoder; where there is no native code, both are one."""
    if request.param == "by ops":
        monkeypatch.setattr(one_call, "why_not", lambda weights: "it is left out of this test")
    else:
        monkeypatch.setattr(native_weight, "why_not_int_mm", lambda: "all batches are to be taken")
    return request.param


@pytest.fixture
def in_one_call(way):
    """For a test of what native code computes beside the layers."""
    if way == "by ops":
        pytest.skip("there the modules are called")


@pytest.fixture
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def native(monkeypatch):
    """Counts the embeddings and pooled outputs that are native code's."""
    found = {"embeddings": 0, "pooler": 0}

    def count(cls, name):
        call = cls.__call__

        def counting(*args):
            result = call(*args)
            found[name] += result is not None
            return result

        monkeypatch.setattr(cls, "__call__", counting)

    count(NativeEmbeddings, "embeddings")
    count(Pooler, "pooler")
    return found
