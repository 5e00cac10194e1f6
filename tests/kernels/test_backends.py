"""Which backend runs: forced in a scope, in the process, and in a backward."""

import threading

import pytest
from samples import TYPED, cases, of_leaves

from sparseq_kernels import backend, backends, set_backend, use_backend


def test_use_backend_is_seen_by_its_thread_alone():
    seen, inside, leave = {}, threading.Event(), threading.Event()

    def other():
        with use_backend("reference"):
            seen["other"] = backend()
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    before = backend()
    thread.start()
    assert inside.wait(10)
    seen["this"] = backend()
    leave.set()
    thread.join()
    assert seen == {"other": "reference", "this": before}


def test_set_backend_is_for_the_process_and_use_backend_goes_before_it():
    seen, before = [], backends.for_process
    set_backend("reference")
    try:
        thread = threading.Thread(target=lambda: seen.append(backend()))
        thread.start()
        thread.join()
        with use_backend("cpu"):
            seen.append(backend())
            with use_backend(None):
                seen.append(backend() != "reference")
        seen.append(backend())
    finally:
        set_backend(before)
    assert seen == ["reference", "cpu", True, "reference"]


@pytest.mark.parametrize("name", ["reference", "cpu"])
@pytest.mark.parametrize("op,args,places", cases())
def test_a_backward_runs_on_the_backend_of_its_forward(op, args, places, name, monkeypatch):
    function, leaves = of_leaves(TYPED, op, args, places)
    held = [leaf.clone().requires_grad_() for leaf in leaves]
    with use_backend(name):
        y = function(*held)
    asked = []
    real = backends.implementation
    monkeypatch.setattr(backends, "implementation", lambda op, device: asked.append(backend()) or real(op, device))
    thread = threading.Thread(target=lambda: y.sum().backward())  # Where nothing is forced.
    thread.start()
    thread.join()
    assert asked == [name]
    assert all(leaf.grad is not None for leaf in held)
