"""What the examples have in common: their options, and the report at the end."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainingArguments

import sparseq


def options(about: str | None, model: str) -> argparse.Namespace:
    """The command line. model: the default of `--model`."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", default=model, help="a hub id or a folder")
    parser.add_argument(
        "--out", type=Path, default=Path("runs/example"), help="the folder for checkpoints and the result"
    )
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--lr", type=float, default=5e-5, help="peak learning rate")
    parser.add_argument("--sparsity", type=float, default=0.6, help="share of the encoder's weights that is removed")
    parser.add_argument("--pattern", default="4x4")
    parser.add_argument("--smallest", action="store_true", help="a small random model and made-up rows, nothing else")
    return parser.parse_args()


def arguments(chosen: argparse.Namespace, **changes: Any) -> TrainingArguments:
    """The same training arguments for each example."""
    settings = {
        "output_dir": str(chosen.out / "checkpoints"),
        "num_train_epochs": chosen.epochs,
        "learning_rate": 1e-3 if chosen.smallest else chosen.lr,
        "warmup_steps": 0.1,
        "weight_decay": 0.01,
        "per_device_train_batch_size": 16,
        "save_strategy": "epoch",
        "save_total_limit": 1,
        "report_to": "none",
        "seed": 0,
    }
    return TrainingArguments(**{**settings, **changes})


def stored(model: nn.Module) -> str:
    """The size of the model's file."""
    return f"{sparseq.size_report(model).stored_bytes / 1e6:.2f} MB"


def report(rows: dict[str, tuple[float, str]], measure: str) -> None:
    """Prints a table: name -> (score, size). measure: what the score is."""
    print(f"{'':<28}{measure:>12}{'stored':>12}")
    for name, (score, size) in rows.items():
        print(f"{name:<28}{score:>12.4f}{size:>12}")
