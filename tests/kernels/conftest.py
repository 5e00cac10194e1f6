"""A cache and a compiler of the test's own, and native code of each instruction set."""

import pytest
import torch
from code_folders import ONCE, compiler, forget, system_compiler
from cpu_backends import EMULATED, on


@pytest.fixture(params=EMULATED)
def every_set(request):
    """Runs the test with native code of each instruction set."""
    with on(request.param):
        yield request.param


@pytest.fixture
def threads():
    """Lets a test set torch's number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def compiles_once(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compiled")
    return compiler(folder, ONCE.format(folder=folder, compiler=system_compiler()))


@pytest.fixture
def quick_compiler(compiles_once, monkeypatch):
    """The compiler takes its time only once: most tests are of where its results are kept, not of what it does."""
    monkeypatch.setenv("CC", str(compiles_once))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A cache of the test's own, in a folder of mode 0700 under a sticky one, as the real ones are."""
    named = tmp_path / "cache"
    monkeypatch.setenv("SPARSEQ_CACHE", str(named))
    forget()
    yield named
    forget()
