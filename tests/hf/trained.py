"""A small classifier, its rows, and trainers of it."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

STEPS = 8


def classifier(head: Any = BertForSequenceClassification, seed: int = 0, **changes: Any) -> Any:
    torch.manual_seed(seed)
    settings = {"vocab_size": 40, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    settings |= {"intermediate_size": 64, "max_position_embeddings": 32}
    return head(BertConfig(**{**settings, **changes}))


def rows(count: int = 32) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 40, (count, 8), generator=generator)
    return [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": row[0] % 2} for row in ids]


def trainer(model: nn.Module, folder: Path, kind: Any = Trainer, steps: int = STEPS, **options: Any) -> Any:
    names = ("callbacks", "distillation", "train_dataset", "optimizers", "data_collator")
    own = {name: options.pop(name) for name in names if name in options}
    settings: dict[str, Any] = {
        "max_steps": steps,
        "per_device_train_batch_size": 8,
        "learning_rate": 1e-3,
        "lr_scheduler_type": "constant",
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "logging_strategy": "no",
        "save_strategy": "no",
        "log_level": "error",
        **options,
    }
    return kind(model, TrainingArguments(str(folder), **settings), **{"train_dataset": rows(), **own})
