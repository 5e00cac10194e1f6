"""encoder: a whole packed BERT classifier on a GPU, beside the same model in bf16, as it is and by torch.compile.

Nothing is trained: random weights take the time of trained ones. Sentences have no padding. On a CPU whole models are
timed by `bench.studies.model`.
"""

import copy
import functools
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench import whole_models
from bench.check import WrongResultError, require_close
from bench.clock import Call
from bench.kernels import peers
from bench.kernels.cases import OURS, Benchmark, Case, Compare, Shape, Trial
from bench.packages import CURRENT, Libraries, Packages
from bench.target import Target
from bench.whole_models import SIZES, Size
from sparseq.nn import fused_way, use_fused_encoder
from sparseq_kernels import use_backend

TORCH, COMPILED, LAYERED = "torch", "torch, compiled", f"{OURS}, layer by layer"
# Of logits in 16 bits, beside fp32's: half a step in bf16 is up to half a step in int8, and moves a value to the next.
TOLERANCE = 0.1
LARGE = Size("BERT-large", 24, 1024, 16, 4096)
BY_SHAPE = {(size.layers, size.hidden): size for size in (SIZES["tiny"], SIZES["minilm"], SIZES["base"], LARGE)}
# Under a capture transformers makes a mask even where nothing is masked, and attention with a mask takes longer. So the
# models of torch have none.
UNMASKED = "unmasked"
# (sentences, tokens of each), the smallest for the smallest cases alone.
SMALLEST_BATCHES, BATCHES = ((2, 5), (1, 3)), ((1, 16), (1, 128), (8, 128), (32, 128), (128, 128), (16, 512))
# Compiling a whole model takes long.
COMPILED_SIZE, COMPILED_BATCHES = SIZES["base"], ((1, 128), (32, 128))


def _shapes() -> dict[Any, list[str]]:
    """(tokens, sentences, hidden, layers), the reverse of a shape -> the network."""
    found = {}
    for (layers, hidden), size in BY_SHAPE.items():
        for sentences, tokens in SMALLEST_BATCHES if size == SIZES["tiny"] else BATCHES:
            found[tokens, sentences, hidden, layers] = [size.name]
    return found


def size_of(layers: int, hidden: int) -> Size:
    """A network that is known, or one with heads of 64 as BERT's are."""
    known = BY_SHAPE.get((layers, hidden))
    return known or Size(f"{layers} layers of {hidden}", layers, hidden, max(1, hidden // 64), 4 * hidden)


@dataclass(frozen=True)
class Models:
    """Of one size. plain: in fp32. halved: the same in the target's dtype. reference: packed, in fp32. layered: packed,
    in the target's dtype, layer by layer."""

    plain: nn.Module
    halved: nn.Module
    reference: nn.Module
    layered: nn.Module


# Making a large model takes longer than timing it.
@functools.lru_cache(maxsize=1)
def models_of(target: Target, size: Size) -> Models:
    plain = whole_models.random_model(size).to(target.device)
    packed = packed_model(CURRENT, plain)
    layered = use_fused_encoder(copy.deepcopy(packed).to(target.dtype), False)
    halved = copy.deepcopy(plain).to(target.dtype)
    return Models(plain, without_masks(halved), packed, without_masks(layered))


def without_masks(model: nn.Module) -> nn.Module:
    """The model, whose attention is as it was, without a mask."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    AttentionInterface.register(UNMASKED, sdpa_attention_forward)
    AttentionMaskInterface.register(UNMASKED, lambda *args, **kwargs: None)
    changed: Any = model
    changed.set_attn_implementation(UNMASKED)
    return model


@functools.lru_cache(maxsize=2)
def ours(library: Packages, target: Target, size: Size) -> nn.Module:
    return packed_model(library, models_of(target, size).plain).to(target.dtype)


def packed_model(library: Packages, plain: nn.Module) -> nn.Module:
    sparseq = importlib.import_module(library.layers.__name__)
    model: nn.Module = sparseq.pack(sparseq.convert(copy.deepcopy(plain)))
    return model


def make_trial(target: Target, libraries: Libraries, size: Size, sentences: int, tokens: int) -> Trial:
    models = models_of(target, size)
    ids = torch.randint(size.vocabulary, (sentences, tokens), device=target.device)
    packed = {name: ours(library, target, size) for name, library in libraries.items()}
    packed[LAYERED] = models.layered

    def call(model: nn.Module) -> Call:
        return lambda: logits(model, ids)

    def check(present: Mapping[str, Call]) -> None:
        expected = logits(models.plain, ids)
        for name in {*present} - {*packed}:
            require_close(name, present[name](), expected, TOLERANCE)
        few = ids[:2]
        with use_backend("reference"):
            expected = logits(models.reference, few)
        for name, model in packed.items():
            require_close(name, logits(model, few), expected, TOLERANCE)
        if target.kind == "cuda" and (way := str(fused_way(packed[OURS], input_ids=ids))).startswith("layer"):
            raise WrongResultError(f"{OURS} does not run fused: {way}")

    trial = Trial({name: call(model) for name, model in packed.items()}, check)
    trial.add(TORCH, call(models.halved))
    compiled = peers.compiled(logits, target)
    trial.add(COMPILED, lambda: compiled(models.halved, ids), why_not_compiled(target, size, (sentences, tokens)))
    trial.pairs = [(LAYERED, TORCH)]
    return trial


def logits(model: nn.Module, ids: Tensor) -> Tensor:
    found: Tensor = model(input_ids=ids).logits
    return found


def why_not_compiled(target: Target, size: Size, batch: tuple[int, int]) -> str | None:
    """Why torch.compile's model is not timed in this case."""
    if target.smallest or (size == COMPILED_SIZE and batch in COMPILED_BATCHES):
        return None
    batches = " and ".join(f"{sentences} x {tokens}" for sentences, tokens in COMPILED_BATCHES)
    return f"compiled models are timed with {COMPILED_SIZE.name}'s shape at {batches} alone"


def timed(target: Target, shape: Shape) -> bool:
    return shape[:2] != (SIZES["tiny"].layers, SIZES["tiny"].hidden)


def build(target: Target, layers: int, hidden: int, sentences: int, tokens: int) -> Case:
    size = size_of(layers, hidden)
    return Case(
        {"size": size.name, "layer": f"{tokens} tokens", "sentences": sentences, "step": "forward"},
        lambda libraries: make_trial(target, libraries, size, sentences, tokens),
        memory=True,
    )


BENCHMARK = Benchmark(
    "encoder",
    "a whole packed BERT classifier (GPU)",
    ("layers", "hidden", "sentences", "tokens"),
    _shapes(),
    build,
    timed=timed,
    why_not=lambda target: None if target.gpu else "bench.studies.model times whole models on a CPU",
)


def test_encoder(compare: Compare, case: Case) -> None:
    compare(case)
