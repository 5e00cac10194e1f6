"""int8_embedding: rows of an int8 table, dequantized. The table has BERT's vocabulary."""

import functools
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.check import require_close
from bench.clock import Call
from bench.kernels.cases import HIDDEN, Benchmark, Case, Compare, Trial, hidden_case
from bench.packages import Libraries, reference
from bench.roofline import work
from bench.target import Target
from sparseq.models import BERT_VOCABULARY

FLOATS = {"fp32 nn.Embedding": torch.float32, "fp16 nn.Embedding": torch.float16}


@functools.lru_cache(maxsize=1)
def make_tables(target: Target, hidden: int) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """(int8 values, their scales, the tables of the peers): shared by all trials of a width, for a table is larger than
    a cache. They differ in the rows that they look up."""
    table = torch.randn(BERT_VOCABULARY, hidden, device=target.device)
    values, scale = reference("quantize_rows", table)
    names = FLOATS if target.gpu else list(FLOATS)[:1]
    return values, scale, {name: table.to(FLOATS[name]) for name in names}


def make_trial(target: Target, libraries: Libraries, M: int, hidden: int) -> Trial:
    values, scale, tables = make_tables(target, hidden)
    indices = torch.randint(0, BERT_VOCABULARY, (M,), device=target.device)

    def check(present: Mapping[str, Call]) -> None:
        expected = values[indices].double() * scale[indices].double().unsqueeze(-1)
        for name, run in present.items():
            require_close(name, run(), expected, 2e-2 if name in FLOATS else 1e-6)

    given = (indices, values, scale)
    trial = Trial({name: library.bind("int8_embedding", *given) for name, library in libraries.items()}, check)
    for name, table in tables.items():
        trial.add(name, functools.partial(F.embedding, indices, table))
    return trial


def build(target: Target, M: int, hidden: int) -> Case:
    rows = min(M, BERT_VOCABULARY) * hidden
    least = work([(M, torch.int64), (rows, torch.int8), (M, torch.float32), (M * hidden, torch.float32)])
    described = hidden_case(hidden, f"{BERT_VOCABULARY} x {hidden}", "forward", M=M)
    return Case(described, lambda libraries: make_trial(target, libraries, M, hidden), least)


BENCHMARK = Benchmark(
    "int8_embedding", "rows of an int8 table, dequantized", ("M", "K"), HIDDEN, build, takes_dtype=False
)


def test_int8_embedding(compare: Compare, case: Case) -> None:
    compare(case)
