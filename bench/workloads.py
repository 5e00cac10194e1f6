"""What whole models are timed on: batches of one shape, and sentences of real lengths in padded batches."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Batch = Mapping[str, Tensor]

SHAPES = ((1, 16), (1, 128), (8, 128), (32, 128))  # (sentences, tokens)
BATCH = 32  # sentences of real lengths, in their own order
_SST2_DEV = Path(__file__).parent / "lengths" / "sst2_dev.json"


@dataclass(frozen=True)
class Workload:
    """What one timed pass runs: `batches`, one after the other.

    case: what a row of the results says of it, beside its name. labels: of all sentences, in order, where they are to
    be scored.
    """

    name: str
    case: Mapping[str, Any]
    batches: Sequence[Batch]
    labels: Tensor | None = None

    @property
    def sentences(self) -> int:
        """Of all batches."""
        return sum(len(batch["input_ids"]) for batch in self.batches)


@dataclass(frozen=True)
class Lengths:
    """Tokens of each sentence of a data set, special tokens included, in the data set's order."""

    name: str
    source: str
    tokenizer: str
    tokens: tuple[int, ...]

    def described(self) -> dict[str, Any]:
        """For a result file: where they come from, and how many sentences have each length."""
        return {
            "name": self.name,
            "source": self.source,
            "tokenizer": self.tokenizer,
            "sentences": len(self.tokens),
            "mean": sum(self.tokens) / len(self.tokens),
            "histogram": {str(length): count for length, count in sorted(Counter(self.tokens).items())},
        }


def sst2_dev() -> Lengths:
    """The lengths of SST-2's development set: what short real sentences look like."""
    known = json.loads(_SST2_DEV.read_text(encoding="utf-8"))
    return Lengths(known["name"], known["source"], known["tokenizer"], tuple(known["lengths"]))


def shape_name(batch: int, tokens: int) -> str:
    return f"{batch} x {tokens}"


def real_name(sentences: str) -> str:
    """The name of the workload of a data set's sentences."""
    return f"{sentences}, batches of {BATCH}"


def random_batch(vocabulary: int, batch: int, tokens: int, seed: int = 0) -> Batch:
    """Random token ids [batch, tokens], nothing padded. Which they are does not change latency."""
    draw = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, vocabulary, (batch, tokens), generator=draw)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def of_shape(vocabulary: int, batch: int, tokens: int) -> Workload:
    """One batch of random ids."""
    held = random_batch(vocabulary, batch, tokens)
    return Workload(shape_name(batch, tokens), {"batch": batch, "tokens": tokens}, (held,))


def of_lengths(vocabulary: int, lengths: Lengths, limit: int, padding: int = 0) -> Workload:
    """Random ids in sentences of these lengths, none above `limit` tokens. padding: the id at padded places."""
    draw = torch.Generator().manual_seed(0)
    rows = [torch.randint(0, vocabulary, (min(length, limit),), generator=draw).tolist() for length in lengths.tokens]
    return of_sentences(lengths.name, rows, padding=padding)


def of_sentences(name: str, rows: Sequence[Sequence[int]], labels: Tensor | None = None, padding: int = 0) -> Workload:
    """Sentences as token ids, in batches of BATCH in their own order, each padded to its longest."""
    batches = [_padded(rows[start : start + BATCH], padding) for start in range(0, len(rows), BATCH)]
    case = {
        "batch": BATCH,
        "sentences": len(rows),
        "tokens": sum(map(len, rows)),
        "padded_tokens": sum(batch["input_ids"].numel() for batch in batches),
    }
    return Workload(real_name(name), case, batches, labels)


def _padded(rows: Sequence[Sequence[int]], padding: int) -> Batch:
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[padding] * (width - len(row))] for row in rows])
    places = torch.arange(width)
    mask = (places < torch.tensor([[len(row)] for row in rows])).to(ids.dtype)
    return {"input_ids": ids, "attention_mask": mask}
