"""Static scales in a user's own loop over several processes."""

import os
import socket
import warnings

import pytest
import torch
import torch.distributed as dist
from torch import nn

from sparseq import InputError, calibrate, convert
from sparseq.nn import share_static_scales


def worker(rank: int, port: int, results: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    found = {}
    for scale in ("max", "lsq"):
        torch.manual_seed(0)
        model = convert(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), activation="static", scale=scale)
        x = torch.full((2, 4), 10.0 if rank else 1.0)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model(x)
            model(x)
        found[scale, "warnings"] = [str(w.message) for w in caught]
        found[scale, "alone"] = model[0].input_scale.item()
        share_static_scales(model)
        found[scale, "shared"] = model[0].input_scale.item()
        found[scale, "second"] = model[1].input_scale.item()
        calibrate(model, [{"input": x / 2}])
        found[scale, "calibrated"] = model[0].input_scale.item()
        if rank == 0:
            calibrate(model, [{"input": x}], share=False)  # would wait for ever if it asked the other process
            found[scale, "own"] = model[0].input_scale.item()
    torch.save(found, f"{results}/{rank}.pt")
    dist.destroy_process_group()


def test_scales_of_two_processes_are_shared(tmp_path, fresh):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"import torch, {__name__} as own; arguments = {(port, str(tmp_path))}; "
    code += "torch.multiprocessing.start_processes(own.worker, arguments, nprocs=2, start_method='fork')"
    done = fresh.run(code)
    assert done.returncode == 0, done.stderr
    zero, one = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for scale in ("max", "lsq"):
        assert zero[scale, "alone"] == pytest.approx(1 / 127) and one[scale, "alone"] == pytest.approx(10 / 127)
        assert zero[scale, "shared"] == one[scale, "shared"] == pytest.approx(10 / 127)
        assert zero[scale, "second"] == one[scale, "second"] > 0
        assert zero[scale, "calibrated"] == one[scale, "calibrated"] == pytest.approx(5 / 127)
        assert zero[scale, "own"] == pytest.approx(1 / 127)
    for found in (zero, one):
        assert len(found["max", "warnings"]) == 1 and "share_static_scales(model)" in found["max", "warnings"][0]
        assert found["lsq", "warnings"] == []  # once a process


def test_alone_there_is_nothing_to_share():
    model = convert(nn.Sequential(nn.Linear(4, 4)), activation="static")
    model(torch.ones(1, 4))
    before = model[0].input_scale.clone()
    assert share_static_scales(model) is model and torch.equal(model[0].input_scale, before)


def losses(model, x):
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    found = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = model(x).square().sum()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("kind", ["FSDP1", "FSDP2"])
@pytest.mark.parametrize("scale", ["max", "lsq"])
def test_scales_are_set_before_fsdp_shards_them(tmp_path, kind, scale):
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

    def net():
        torch.manual_seed(0)
        return convert(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)), activation="static", scale=scale)

    def sharded(model):
        if kind == "FSDP1":
            return FullyShardedDataParallel(model, use_orig_params=True, device_id=torch.device("cpu"))
        for part in (model[0], model[2], model):
            fully_shard(part)
        return model

    x = torch.randn(5, 8)
    batches = [{"input": x}]
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert losses(sharded(calibrate(net(), batches)), x) == pytest.approx(losses(calibrate(net(), batches), x))
        if scale == "max":  # a buffer, of which every process has all
            assert losses(sharded(net()), x) == pytest.approx(losses(net(), x))
            return
        for use in (lambda model: model(x), lambda model: calibrate(model, batches)):
            with pytest.raises(InputError, match="before the model is wrapped"):
                use(sharded(net()))
    finally:
        dist.destroy_process_group()
