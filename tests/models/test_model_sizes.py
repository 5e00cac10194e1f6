"""The six sizes against the paper's table and against transformers."""

import pytest
import torch
from fresh import FreshProcesses
from torch import nn

from sparseq import models
from sparseq.errors import InputError
from sparseq.models import SIZES, SizeSpec
from sparseq.size import paper_bytes

# Rows of the paper's Table 1 and of its quoted counts: size -> (parameters quoted, in millions; with and without
# the untied MLM head to two decimals; MB; encoder linear weights' share in per cent).
PAPER = {
    "large": (367, 367.48, 335.14, 1341, 90.1),
    "base": (134, 133.55, 109.48, 438, 77.6),
    "medium": (57, 57.29, 41.37, 166, 60.8),
    "small": (45, 44.69, 28.76, 115, 43.7),
    "mini": (19, 19.08, 11.17, 45, 28.2),
    "tiny": (8, 8.34, 4.39, 18, 9.0),
}


@pytest.mark.parametrize("size", PAPER)
def test_counts_are_the_papers(size: str) -> None:
    quoted, with_head, total, megabytes, share = PAPER[size]
    counts = SIZES[size].counts()
    assert round(counts.with_mlm_head / 1e6) == quoted
    assert round(counts.with_mlm_head / 1e6, 2) == with_head
    assert round(counts.total / 1e6, 2) == total
    # Medium's 165.49 MB is 166 in the paper, which seems to have taken 4 x 41.4 million; the others round exactly.
    assert paper_bytes(counts.total) / 1e6 == pytest.approx(megabytes, abs=0.51)
    assert round(100 * counts.prunable_share, 1) == share


# MB by hand: total parameters less 40 % or 60 % of the encoder's linear weights, 4 bytes each or 1 under QAT.
@pytest.mark.parametrize(
    ("size", "sparsity", "bits", "expected"),
    [
        ("base", 0.0, 8, 109_482_240),
        ("base", 0.4, 32, 4 * (109_482_240 - 33_973_862)),
        ("base", 0.6, 32, 4 * (109_482_240 - 50_960_794)),
        ("base", 0.4, 8, 109_482_240 - 33_973_862),
        ("base", 0.6, 8, 109_482_240 - 50_960_794),
        ("tiny", 0.4, 32, 4 * (4_385_920 - 157_286)),
        ("tiny", 0.6, 8, 4_385_920 - 235_930),
        ("large", 0.6, 8, 335_141_888 - 181_193_933),
        ("large", 0.6, 32, 4 * (335_141_888 - 181_193_933)),
    ],
)
def test_paper_bytes(size: str, sparsity: float, bits: int, expected: int) -> None:
    counts = SIZES[size].counts()
    assert paper_bytes(counts.total, counts.encoder_linear_weights, sparsity, bits) == expected


@pytest.mark.parametrize("size", SIZES)
def test_counts_agree_with_transformers(size: str) -> None:
    from transformers import BertForMaskedLM, BertModel

    config = models.config_for(size)
    config.tie_word_embeddings = False
    counts = models.count(config)
    assert counts == SIZES[size].counts()
    with torch.device("meta"):
        encoder = BertModel(config)
        with_head = BertForMaskedLM(config)
    assert sum(p.numel() for p in encoder.parameters()) == counts.total
    linears = [m for m in encoder.encoder.modules() if isinstance(m, nn.Linear)]
    assert sum(m.weight.numel() for m in linears) == counts.encoder_linear_weights
    # The quoted count has the pooler, which transformers leaves out beside an MLM head, and one bias for the
    # vocabulary, of which transformers makes two where the decoder is not tied.
    pooler = sum(p.numel() for p in encoder.pooler.parameters())
    masked_lm = sum(p.numel() for n, p in with_head.named_parameters() if n != "cls.predictions.bias")
    assert masked_lm + pooler == counts.with_mlm_head


def test_count_reads_other_bert_shapes() -> None:
    from transformers import DistilBertConfig, RobertaConfig, RobertaModel

    with torch.device("meta"):
        shape = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4}
        config = RobertaConfig(**shape, intermediate_size=48, type_vocab_size=1)
        assert models.count(config).total == sum(p.numel() for p in RobertaModel(config).parameters())
    with pytest.raises(InputError, match="not 'distilbert'"):
        models.count(DistilBertConfig())
    with pytest.raises(InputError, match="there is no size 'huge'; the sizes are tiny"):
        models.config_for("huge")


def test_counts_need_no_transformers(fresh: FreshProcesses) -> None:
    code = (
        "import sys; sys.modules['transformers'] = None\n"
        "from sparseq.models import SIZES, count; print(count(SIZES['tiny']).total)"
    )
    done = fresh.run(code)
    assert done.stdout.split() == ["4385920"], done.stderr


def test_sizes_fill_in_the_feed_forward_width() -> None:
    assert SizeSpec(2, 8, 2).counts() == SizeSpec(2, 8, 2, feed_forward=32).counts()
