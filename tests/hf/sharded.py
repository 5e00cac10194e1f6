"""A process of two that train a model sharded by FSDP2, and compare it with the model trained whole."""

from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from trained import classifier

from sparseq import convert
from sparseq.criterion import PruningSettings
from sparseq.prune import Pruner, gradual_pruner

CASES = {
    "blocks, fisher": (PruningSettings(0.6, "4x4"), {}),
    "unstructured, magnitude": (PruningSettings(0.6, "unstructured", "magnitude"), {}),
    "blocks, regrow": (PruningSettings(0.6, "4x4", regrow=True), {}),
    "2:4": (PruningSettings(0.5, "2:4"), {}),
    "masked before": (PruningSettings(0.6, "4x4"), {"sparsity": 0.3, "pattern": "4x4"}),
}


def train(model: Any, settings: PruningSettings) -> tuple[list[float], Pruner]:
    """(the losses of the steps, the pruner)."""
    ids, labels = torch.arange(2, 34).reshape(4, 8), torch.tensor([0, 1, 1, 0])
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    pruner = gradual_pruner(model, settings, 8, optimizer)
    losses = [pruner.step(0)]
    for step in range(1, 9):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        pruner.step(step)
        losses.append(loss.item())
    return losses, pruner


def main(case: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    settings, changes = CASES[case]
    dense = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    models = [convert(classifier(**dense).train(), **changes) for _ in range(2)]
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    for block in models[1].bert.encoder.layer:
        fully_shard(block, mesh=mesh)
    fully_shard(models[1], mesh=mesh)
    (expected, whole), (found, sharded) = (train(model, settings) for model in models)
    assert found == expected
    assert sharded.reached() == whole.reached() > 0.45
    for name, layer in whole.layers.items():
        other = sharded.layers[name]
        assert torch.equal(other.mask, layer.mask)
        assert torch.equal(other.weight.full_tensor(), layer.weight)
    dist.destroy_process_group()
