from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.check import require_close
from bench.clock import Call
from bench.kernels.cases import OURS, Trial, hidden_case
from bench.kernels.conftest import Compare
from bench.roofline import work
from bench.target import Target
from sparseq.models import BERT_VOCABULARY
from sparseq_kernels.reference.quantize_rows import quantize_rows

OP = torch.ops.sparseq.int8_embedding


def make_trial(target: Target, M: int, table: Tensor, integers: Tensor, scale: Tensor, half: Tensor | None) -> Trial:
    """Trials share the table, which is larger than a cache, and differ in the rows that they look up."""
    indices = torch.randint(0, BERT_VOCABULARY, (M,), device=target.device)
    candidates = {OURS: lambda: OP(indices, integers, scale), "fp32 nn.Embedding": lambda: F.embedding(indices, table)}
    if half is not None:
        candidates["fp16 nn.Embedding"] = lambda: F.embedding(indices, half)

    def check(present: Mapping[str, Call]) -> None:
        expected = integers[indices].double() * scale[indices].double().unsqueeze(-1)
        for name, run in present.items():
            require_close(name, run(), expected, 1e-6 if name == OURS else 2e-2)

    return Trial(dict(candidates), check)


def test_int8_embedding(compare: Compare, target: Target, hidden: int, M: int) -> None:
    rows = min(M, BERT_VOCABULARY) * hidden
    least = work([(M, torch.int64), (rows, torch.int8), (M, torch.float32), (M * hidden, torch.float32)])
    case = hidden_case(hidden, f"{BERT_VOCABULARY} x {hidden}", "forward", M=M)
    with torch.inference_mode():
        table = torch.randn(BERT_VOCABULARY, hidden, device=target.device)
        tables = (table, *quantize_rows(table, 8), table.half() if target.gpu else None)
        compare(case, lambda: make_trial(target, M, *tables), least)
