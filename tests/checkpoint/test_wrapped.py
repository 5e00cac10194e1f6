"""What stands around a model in training is left out of its file, or refused in a sentence."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from altered import Folder, classifier, logits
from torch import nn
from torch.optim.swa_utils import AveragedModel

from sparseq import convert, load, pack, save, size_report
from sparseq.checkpoint import contents
from sparseq.errors import InputError
from sparseq.nn.unwrap import plain_modules, plain_state, unwrapped


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A process group of this process alone."""
    store = tmp_path_factory.mktemp("group") / "store"
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


def parts(wrap: Callable[[nn.Module], nn.Module]) -> Callable[[nn.Module], nn.Module]:
    """Wraps a part of the model, and a part of that."""

    def wrapped(model: Any) -> nn.Module:
        block = model.bert.encoder.layer[0]
        block.attention = wrap(block.attention)
        model.bert.encoder.layer[0] = wrap(block)
        return model

    return wrapped


def prepared(model: nn.Module) -> nn.Module:
    from accelerate import Accelerator

    return Accelerator(cpu=True).prepare(model)  # type: ignore[no-any-return]


def in_place(model: nn.Module) -> nn.Module:
    model.compile()
    return model


DISTRIBUTED = nn.parallel.DistributedDataParallel
WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compile": torch.compile,
    "compile in place": in_place,
    "DataParallel": nn.DataParallel,
    "DistributedDataParallel": DISTRIBUTED,
    "AveragedModel": AveragedModel,
    "accelerate": prepared,
    "compile of DistributedDataParallel": lambda model: torch.compile(DISTRIBUTED(model)),  # type: ignore[return-value]
    "DataParallel of compile": lambda model: nn.DataParallel(torch.compile(model)),  # type: ignore[arg-type]
    "AveragedModel of compile": lambda model: AveragedModel(torch.compile(model)),  # type: ignore[arg-type]
    "parts compiled": parts(torch.compile),  # type: ignore[arg-type]
    "parts in DataParallel": parts(nn.DataParallel),
    "compile of parts compiled": lambda model: torch.compile(parts(torch.compile)(model)),  # type: ignore
}


@pytest.mark.parametrize("convert_it", [False, True], ids=["plain", "training"])
@pytest.mark.parametrize("name", WRAPPERS)
def test_the_model_inside_is_saved(name: str, convert_it: bool, tmp_path: Path, group: None) -> None:
    model = convert(classifier(), sparsity=0.5) if convert_it else classifier()
    plain = size_report(model).as_dict()
    wanted = logits(model)
    save(model, tmp_path / "plain")
    wrapped = WRAPPERS[name](model)
    save(wrapped, tmp_path / "wrapped")
    # The text entries of the header, its checksum among them, are in no order.
    assert Folder.read(tmp_path / "wrapped") == Folder.read(tmp_path / "plain")
    assert torch.equal(logits(load(tmp_path / "wrapped")), wanted)
    assert size_report(wrapped).as_dict() == plain


@pytest.mark.parametrize("name", WRAPPERS)
def test_names_are_the_plain_ones(name: str, group: None) -> None:
    model = classifier()
    names, state = [name for name, _ in model.named_modules()], set(model.state_dict())
    wrapped = WRAPPERS[name](model)
    assert [path for path, _ in plain_modules(wrapped)] == names
    assert set(plain_state(wrapped)) == state
    assert type(unwrapped(wrapped)) is type(classifier())


@pytest.mark.parametrize("name", ["compile", "DataParallel", "AveragedModel", "parts compiled"])
def test_pack_leaves_the_wrapper(name: str, tmp_path: Path) -> None:
    model = convert(classifier(), sparsity=0.5)
    wanted = logits(pack(model))
    packed = pack(WRAPPERS[name](model))
    save(packed, tmp_path)
    assert torch.equal(logits(load(tmp_path)), wanted)


def test_a_plain_module_called_module_is_no_wrapper(tmp_path: Path) -> None:
    model = nn.ModuleDict({"module": nn.Linear(2, 2), "_orig_mod": nn.Linear(2, 2)})
    assert set(contents(model).tensors) == set(model.state_dict())


def test_shards_are_refused(group: None, tmp_path: Path) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

    def in_fsdp(module: nn.Module) -> nn.Module:
        # As it stands in a model; its constructor needs a GPU.
        wrapper = FullyShardedDataParallel.__new__(FullyShardedDataParallel)
        nn.Module.__init__(wrapper)
        wrapper._fsdp_wrapped_module = module
        return wrapper

    mesh = init_device_mesh("cpu", (1,))
    sharded = {
        "FSDP": lambda: in_fsdp(classifier()),
        "FSDP of a part": lambda: nn.Sequential(in_fsdp(nn.Linear(4, 4))),
        "fully_shard": lambda: fully_shard(classifier(), mesh=mesh),
    }
    for name, make in sharded.items():
        model = make()
        for use in (lambda model=model: save(model, tmp_path / "new"), lambda model=model: size_report(model)):
            with pytest.raises(InputError, match=r"shard of .*gather the whole state") as caught:
                use()
            assert "\n" not in str(caught.value), name
    assert os.listdir(tmp_path) == []
