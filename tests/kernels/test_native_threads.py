"""Native code in threads and in forked children: it shares torch's pool of threads, and never waits for one that is not
there."""

import os

import pytest
from code_folders import compiles

pytestmark = [compiles, pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted in /proc")]

# A child that hangs is ended by an alarm.
START = """
import os, signal, threading, torch
from sparseq_kernels.cpu import native
from sparseq_kernels.cpu.native import openmp
os.register_at_fork(after_in_child=lambda: signal.alarm(60))
torch.set_num_threads(2)
x = torch.randn(512, 512)
right = native.quantize_rows(x, 8)[0] if {parent!r} == "native" else None
if {parent!r} == "torch":
    x.repeat(20, 1).add_(1)
def is_right(found):  # Without torch, which may not have a pool of its own.
    return right is None or found.numpy().tobytes() == right.numpy().tobytes()
def child():
    before = len(os.listdir("/proc/self/task"))
    found = native.quantize_rows(x, 8)[0]
    started = len(os.listdir("/proc/self/task")) - before
    x.repeat(20, 1).add_(1)
    print(openmp.threads(), started, is_right(found), flush=True)
    os._exit(0)
def ended(pid):
    # Flushed: a child that is forked next would print it again.
    print("ended with", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
FORK = """
def fork():
    pid = os.fork()
    child() if not pid else ended(pid)
"""


@pytest.mark.parametrize("parent", ["native", "torch", "neither"])
def test_a_forked_child_has_a_pool_of_its_own(parent, fresh):
    done = fresh.run(START.format(parent=parent) + FORK + "fork()\nfork()\nprint(torch.get_num_threads())")
    assert done.stdout == "2 1 True\nended with 0\n" * 2 + "2\n", done.stdout + done.stderr


def test_so_has_one_that_another_thread_forked(fresh):
    code = (
        "thread = threading.Thread(target=lambda: (native.quantize_rows(x, 8), fork()))\nthread.start()\nthread.join()"
    )
    done = fresh.run(START.format(parent="native") + "torch.set_num_threads(2)" + FORK + code)
    assert done.stdout == "2 1 True\nended with 0\n", done.stdout + done.stderr


@pytest.mark.parametrize("children", [1, 2])
def test_without_a_pool_of_its_own_a_child_uses_one_thread(children, fresh):
    """As with GNU's runtime before gcc 9, which cannot end its threads before a fork."""
    code = """
openmp._pause = lambda: False
pid = os.fork()
if pid:
    ended(pid)
else:
    native.quantize_rows(x, 8)
    for _ in range({more}):
        pid = os.fork()
        if pid:
            ended(pid)
            os._exit(0)
    print(openmp.threads(), is_right(native.quantize_rows(x, 8)[0]), flush=True)
    os._exit(0)
"""
    done = fresh.run(START.format(parent="native") + code.format(more=children - 1))
    assert done.stdout.startswith("1 True\nended with 0\n"), done.stdout + done.stderr


def test_so_does_one_that_c_code_forked(fresh):
    """As uWSGI does: Python is told of the fork in the child alone. There it may fork again."""
    code = """
import ctypes
pid = ctypes.PyDLL(None).fork()
if pid:
    ended(pid)
else:
    ctypes.pythonapi.PyOS_AfterFork_Child()
    print(openmp.threads(), is_right(native.quantize_rows(x, 8)[0]), flush=True)
    pid = os.fork()
    if pid:
        ended(pid)
    else:
        print(openmp.threads(), is_right(native.quantize_rows(x, 8)[0]), flush=True)
    os._exit(0)
"""
    done = fresh.run(START.format(parent="native") + code)
    assert "1 True\n1 True\n" in done.stdout and done.stdout.endswith("ended with 0\n"), done.stdout + done.stderr


def test_the_workers_of_a_loader_run_native_code(fresh):
    code = """
class Rows(torch.utils.data.Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, index):
        return native.quantize_rows(x, 8)[0]
loader = torch.utils.data.DataLoader(Rows(), num_workers=2, multiprocessing_context="fork", timeout=60)
print([torch.equal(batch[0], right) for batch in loader])
"""
    done = fresh.run(START.format(parent="native") + code)
    assert done.stdout == "[True, True, True, True]\n", done.stdout + done.stderr


def test_many_threads_at_once_while_torchs_number_changes(fresh):
    code = """
right = native.int8_matmul(right[:64], right[64:128])
found = []
def run(number):
    for round in range(20):
        torch.set_num_threads(1 + (number + round) % 3)
        rows = native.quantize_rows(x, 8)[0]
        found.append(torch.equal(native.int8_matmul(rows[:64], rows[64:128]), right))
threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(len(found), all(found))
"""
    done = fresh.run(START.format(parent="native") + code)
    assert done.stdout == "160 True\n", done.stdout + done.stderr


def test_python_goes_on_while_native_code_runs(fresh):
    code = """
import time
torch.set_num_threads(1)
w = torch.ones(2048, 2048, dtype=torch.int8)
begun, ended_, passed = threading.Event(), threading.Event(), 0
def run():
    begun.set()
    native.int8_matmul(w, w)
    ended_.set()
thread = threading.Thread(target=run)
thread.start()
begun.wait()
while not ended_.is_set():
    time.sleep(0.001)
    passed += 1
thread.join()
print(passed)
"""
    done = fresh.run(START.format(parent="native") + code)
    assert int(done.stdout) >= 5, done.stdout + done.stderr
