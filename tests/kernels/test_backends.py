"""Which backend runs: forced in a scope, in the process, and in a backward."""

import functools
import threading

import pytest
import torch
from samples import TYPED, cases, of_leaves

from sparseq_kernels import InputError, backend, backends, int8_linear, registry, set_backend, use_backend
from sparseq_kernels.registry import OPS


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


def test_devices_are_given_as_torch_takes_them():
    assert backend(torch.device("cpu")) == backend("cpu:0") == backend("cpu")
    for device in ("gpu", "meta", None):
        with pytest.raises(InputError, match="backends for the devices cpu and cuda, not for"):
            backend(device)


def test_an_unknown_backend_in_the_environment_is_named_when_it_is_first_used(fresh):
    code = """
import sparseq_kernels, torch
x = torch.ones(2, 4)
for _ in range(2):
    try:
        sparseq_kernels.quantize_rows(x)
    except sparseq_kernels.InputError as error:
        print(error)
with sparseq_kernels.use_backend("reference"):
    print(sparseq_kernels.quantize_rows(x)[0].dtype)
"""
    done = fresh.run(code, SPARSEQ_BACKEND="nativ")
    sentence = "unknown backend 'nativ' in SPARSEQ_BACKEND: available are reference, cpu, native, triton"
    assert done.stdout.splitlines() == [sentence, sentence, "torch.int8"], done.stdout + done.stderr


@pytest.mark.parametrize("module", ["dispatch", "autograd", "ops.int8_linear", "registry", "backends"])
def test_any_module_may_be_imported_first(module, fresh):
    done = fresh.run(f"import sparseq_kernels.{module}; print(sparseq_kernels.int8_linear.__name__)")
    assert done.stdout == "int8_linear\n", done.stderr


def test_a_shortcut_is_that_of_the_backend_that_was_asked_for(monkeypatch):
    """Another thread may force another backend between the two."""
    x, weight, scale = torch.randn(3, 17), torch.ones(6, 17, dtype=torch.int8), torch.ones(6)
    real, asked = backends.shortcut, []

    def shortcut(op, device, forced):
        set_backend(None)
        asked.append(forced)
        return real(op, device, forced)

    monkeypatch.setattr(backends, "shortcut", shortcut)
    monkeypatch.setattr(OPS["int8_linear"], "_shortcuts", {})
    before = backends.for_process
    try:
        set_backend("reference")
        int8_linear(x, weight, scale)
        set_backend("reference")
        int8_linear(x, weight, scale)
        assert asked == ["reference"] and list(OPS["int8_linear"]._shortcuts.values()) == [None]
    finally:
        set_backend(before)


def test_a_backend_serves_what_it_has_no_implementation_for_by_the_one_it_is_based_on(monkeypatch):
    monkeypatch.setattr(registry, "_implementations", dict(registry._implementations))
    backends.load("native")
    registry._implementations.pop(("native", "quantize_rows"), None)
    monkeypatch.setattr(backends, "_implementations", functools.cache(backends._implementations.__wrapped__))
    cpu = registry.find_implementation("cpu", "quantize_rows")
    with use_backend("native"):
        assert cpu is not None and backends.implementation(OPS["quantize_rows"], "cpu") is cpu.run


@pytest.mark.parametrize(("op", "name"), [("quantise_rows", "native"), ("quantize_rows", "nativ")])
def test_an_implementation_of_what_there_is_not_is_refused_when_it_is_loaded(op, name, monkeypatch):
    monkeypatch.setattr(registry, "_implementations", dict(registry._implementations))
    registry.implementation(op, name)(lambda *args: None)
    with pytest.raises(ValueError, match="there is no such op or backend"):
        backends.load.__wrapped__("cpu")
    with pytest.raises(ValueError, match="already"):
        registry.implementation(op, name)(lambda *args: None)
