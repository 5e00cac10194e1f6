import torch
import torch.nn.functional as F

from bench.check import require_close
from bench.kernels.cases import HIDDEN, OURS, over_hidden, over_rows
from bench.kernels.conftest import Compare
from sparseq.models import BERT_VOCABULARY
from sparseq_kernels.reference.quantize_rows import quantize_rows

OP = torch.ops.sparseq.int8_embedding


@over_rows
@over_hidden
def test_int8_embedding(compare: Compare, hidden: int, M: int) -> None:
    table = torch.randn(BERT_VOCABULARY, hidden)
    indices = torch.randint(0, BERT_VOCABULARY, (M,))
    integers, scale = quantize_rows(table, 8)
    candidates = {OURS: lambda: OP(indices, integers, scale), "fp32 nn.Embedding": lambda: F.embedding(indices, table)}

    def check() -> None:
        expected = integers[indices].double() * scale[indices].double().unsqueeze(-1)
        require_close("int8_embedding", OP(indices, integers, scale), expected, 1e-6)
        require_close("fp32 nn.Embedding", F.embedding(indices, table), expected, 2e-2)

    case = {"size": ", ".join(HIDDEN[hidden]), "layer": f"{BERT_VOCABULARY} x {hidden}", "M": M, "step": "forward"}
    with torch.inference_mode():
        compare(case, check, candidates)
