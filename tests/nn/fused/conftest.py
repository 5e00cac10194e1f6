import pytest

from sparseq.nn.fused import one_call
from sparseq_kernels.cpu import encoder


@pytest.fixture(params=["one call", pytest.param("by ops", marks=pytest.mark.slow)], autouse=True)
def way(request, monkeypatch):
    """Every test on both ways of a fused encoder; where there is no native code, both are one."""
    if request.param == "by ops":
        monkeypatch.setattr(one_call, "why_not", lambda weights: "it is left out of this test")
    else:
        monkeypatch.setattr(encoder, "why_not_int_mm", lambda: "all batches are to be taken")
    return request.param
