"""Whatever one argument of an op is replaced by, the outcome is an InputError or the right result, and no crash."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from altered_arguments import BACKENDS
from samples import call

from sparseq_kernels import InputError, InputIndexError, InputTypeError, backend
from sparseq_kernels.registry import OPS as REGISTRY

PROGRAM = Path(__file__).with_name("altered_arguments.py")


@pytest.fixture(
    scope="module",
    params=[name if name == backend() else pytest.param(name, marks=pytest.mark.slow) for name in BACKENDS],
)
def outcomes(request):
    """(what was found wrong with each op, how many alterations of it were tried) with a backend."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, PROGRAM, "--backend", request.param]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    last = done.stderr.splitlines()[-40:]
    assert done.returncode == 0, "it ended at:\n" + "\n".join(last)
    lines = done.stdout.splitlines()
    tried = {op: int(count) for op, count in re.findall(r"^done (\w+) (\d+)$", done.stdout, re.MULTILINE)}
    return {op: [line for line in lines if line.startswith(f"{op},")] for op in REGISTRY}, tried


@pytest.mark.parametrize("op", REGISTRY)
def test_an_altered_argument_is_refused_or_gives_the_right_result(op, outcomes):
    wrong, tried = outcomes
    assert tried[op] > 50
    assert not wrong[op]


OPS = torch.ops.sparseq
X, W = torch.randn(3, 8), torch.randn(4, 8)
W8, SCALE = torch.ones(4, 8, dtype=torch.int8), torch.ones(4)


def test_errors_are_of_the_types_that_torch_raises():
    with pytest.raises(RuntimeError) as error:
        call("qat_linear", X[:, :7], W)
    assert isinstance(error.value, InputError) and isinstance(error.value, ValueError)
    for x in (None, [1.0], 3, "x"):
        with pytest.raises(TypeError, match="x must be a tensor") as error:
            call("qat_linear", x, W)
        assert isinstance(error.value, InputTypeError)
    with pytest.raises(IndexError, match=r"index 4 is outside \[0, 4\)") as error:
        OPS.int8_embedding(torch.tensor([4]), W8, SCALE)
    assert isinstance(error.value, InputIndexError)


@pytest.mark.parametrize("index", [-1, 4])
def test_an_index_outside_the_table_is_refused_as_in_training(index):
    with pytest.raises(IndexError):
        torch.nn.functional.embedding(torch.tensor([index]), W)
    with pytest.raises(IndexError, match=f"index {index} is outside"):
        OPS.int8_embedding(torch.tensor([0, index]), W8, SCALE)


def test_a_large_weight_and_a_small_mask_are_refused_before_a_pointer_is_taken():
    x, weight, grad = torch.randn(2, 4096), torch.randn(4096, 4096), torch.randn(2, 4096)
    with pytest.raises(InputError, match="mask must have the shape"):
        OPS.masked_linear_backward(grad, x, weight, torch.ones(1, 1, dtype=torch.bool), False, [True] * 3)
    levels = [torch.ones(1, 1, dtype=torch.int8), torch.ones(1)]
    with pytest.raises(InputError, match="saved"):
        OPS.qat_linear_backward(
            grad, None, weight, None, None, None, levels * 2, 8, 8, torch.float32, False, [True] * 5
        )


def test_no_weights_have_no_masks():
    assert OPS.magnitude_mask([], 0.5) == []


@pytest.mark.parametrize("op", REGISTRY)
def test_tensors_on_two_devices_are_refused_where_shapes_are_faked(op):
    """With a tensor on meta, torch takes the fake version, whose result lies where x does, uninitialized."""
    from samples import SAMPLES, call

    for sample in SAMPLES[op](torch.float32):
        places = [i for i, arg in enumerate(sample) if isinstance(arg, torch.Tensor)]
        for place in places if len(places) > 1 else []:
            args = [arg.detach() if isinstance(arg, torch.Tensor) else arg for arg in sample]
            args[place] = args[place].to("meta")
            for run in (getattr(OPS, op), lambda *args: call(op, *args)):
                with pytest.raises(InputError, match="move them to one device"):
                    run(*args)


@pytest.mark.parametrize("op", REGISTRY)
def test_shapes_and_dtypes_are_checked_where_they_are_faked(op):
    from samples import SAMPLES

    sample = SAMPLES[op](torch.float32)[-1]
    args = [arg.detach().to("meta") if isinstance(arg, torch.Tensor) else arg for arg in sample]
    args = [
        [one.to("meta") if isinstance(one, torch.Tensor) else one for one in a] if isinstance(a, list) else a
        for a in args
    ]
    getattr(OPS, op)(*args)
    first = args[0][0] if isinstance(args[0], list) else args[0]
    args[0] = [first.to(torch.complex64)] if isinstance(args[0], list) else first.to(torch.complex64)
    with pytest.raises(InputError, match="complex64"):
        getattr(OPS, op)(*args)
