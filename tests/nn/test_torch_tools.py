"""torch's own tools on models with sparseq layers: export, AOTInductor, tracing, and TorchScript, which is refused."""

import copy
import io
from pathlib import Path
from typing import Any

import pytest
import torch
from fresh import FreshProcesses
from fused_models import plain
from torch import nn

from sparseq.errors import InputError
from sparseq.nn import convert, pack

IDS = torch.tensor([[2, 7, 9, 3, 11], [2, 11, 3, 4, 5]])


def training() -> Any:
    return convert(plain("Bert", "Model"), sparsity=0.5, pattern="4x4").eval()


FORMS = {"training": training, "packed": lambda: pack(training())}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("inside", [False, True], ids=["model", "module list"])
def test_torchscript_is_refused_in_a_sentence(form: str, inside: bool) -> None:
    model = FORMS[form]()
    with pytest.raises(InputError, match=r"cannot be scripted by TorchScript.*torch\.export"):
        torch.jit.script(nn.Sequential(model) if inside else model)
    for layer in (m for m in model.modules() if hasattr(m, "__prepare_scriptable__")):
        with pytest.raises(InputError, match=type(layer).__name__):
            torch.jit.script(layer)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_a_trace_gives_the_same(form: str) -> None:
    model = FORMS[form]()
    traced = torch.jit.trace(model, (IDS,), strict=False, check_trace=False)
    torch.testing.assert_close(traced(IDS)["last_hidden_state"], model(IDS).last_hidden_state, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_an_exported_program_takes_other_batches_and_lengths(form: str) -> None:
    model = FORMS[form]()
    sides = {0: torch.export.Dim("batch", min=1, max=16), 1: torch.export.Dim("length", min=2, max=20)}
    program = torch.export.export(model, (), {"input_ids": IDS}, dynamic_shapes={"input_ids": sides}).module()
    for ids in (IDS, IDS[:1, :3], IDS.repeat(3, 2)):
        found, expected = program(input_ids=ids), model(input_ids=ids)
        torch.testing.assert_close(found.last_hidden_state, expected.last_hidden_state, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@torch.no_grad()
def test_copies_and_states(form: str) -> None:
    model = FORMS[form]()
    expected = model(IDS).last_hidden_state
    assert torch.equal(copy.deepcopy(model)(IDS).last_hidden_state, expected)
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    buffer.seek(0)
    other = copy.deepcopy(model)
    for tensor in other.state_dict().values():
        tensor.zero_()
    other.load_state_dict(torch.load(buffer, weights_only=True))
    assert torch.equal(other(IDS).last_hidden_state, expected)


ELSEWHERE = """
import torch
found = torch._inductor.aoti_load_package({path!r})(torch.load({path!r} + ".x", weights_only=True))
torch.save(found, {path!r} + ".y")
"""


@pytest.mark.slow
def test_a_package_of_aotinductor_needs_the_ops_in_its_process(tmp_path: Path, fresh: FreshProcesses) -> None:
    layer = pack(convert(nn.Sequential(nn.Linear(32, 16)), sparsity=0.5, pattern="4x4"))
    x = torch.randn(4, 32)
    with torch.no_grad():
        path = torch._inductor.aoti_compile_and_package(
            torch.export.export(layer, (x,)), package_path=str(tmp_path / "layer.pt2")
        )
        expected = layer(x)
    torch.save(x, f"{path}.x")
    code = ELSEWHERE.format(path=path)
    without, with_ops = fresh.run(code), fresh.run("import sparseq_kernels\n" + code)
    assert with_ops.returncode == 0, with_ops.stderr
    torch.testing.assert_close(torch.load(f"{path}.y", weights_only=True), expected)
    assert without.returncode != 0 and "sparseq" in without.stderr
