"""Which kernels calls need on an architecture, each once, without compiling them."""

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from triton import knobs

from tools.absent_gpu import ARCHITECTURES, absent_gpu
from tools.compile_cases import Case

# Constants that change a few instructions of a kernel, or the type of what it loads, and nothing of its tile or of what
# its loop does.
MINOR = frozenset({
    "ACTIVATION", "QMAX", "X_QMAX", "W_QMAX", "CLIPPED_QMAX", "CLIP", "REGROW", "X_STRIDE", "EVEN_D", "TYPE", "ENTRIES",
    "SHIFT",
})  # fmt: skip

# Constants that change how many registers a tile takes after its loop, or to load what is beyond the last step's end.
ENDING = frozenset({"ACTIVATION", "EVEN_K", "EVEN_D"})


@dataclass(frozen=True)
class Variant:
    """A kernel as Triton compiles it once. data: its types, constants, alignments and options, by which Triton can
    compile it again in another process. text: the same for a reader, and the first call that needs it. config: of its
    constants those that a config sets, and its loads; pointers: how many tensors it gets. hungry: of a tile that is
    written in parts, because its sums leave few registers, all that its registers depend on; else empty."""

    arch: str
    module: str
    kernel: str
    data: str
    text: str
    config: str
    pointers: int
    hungry: str = ""


def variants(arch: str, calls: Iterable[Case]) -> list[Variant]:
    """The distinct kernels that the calls need on `arch`."""
    found: dict[str, Variant] = {}
    case: Case

    def note(*, fn: Any, compile: Any, **unused: Any) -> bool:
        data = compile["specialization_data"]
        if data not in found:
            found[data] = _variant(arch, fn, data, f"first for {case.op} of {case.text}")
        return True  # Triton, do not compile.

    before = knobs.runtime.jit_cache_hook
    knobs.runtime.jit_cache_hook = note
    try:
        with torch.inference_mode():
            for name, group in itertools.groupby(calls, lambda call: call.device):
                with absent_gpu(arch, name, record=False):
                    for case in group:
                        case.run()
    finally:
        knobs.runtime.jit_cache_hook = before
    return list(found.values())


def _variant(arch: str, fn: Any, data: str, first: str) -> Variant:
    content = json.loads(data)
    values = {key[0]: value for key, value in zip(content["constant_keys"], content["constant_vals"], strict=True)}
    words, config, registers = [], [], []
    for index, (parameter, kind) in enumerate(zip(fn.jit_function.params, content["signature"].values(), strict=True)):
        if kind != "constexpr":
            words.append(f"{parameter.name} {kind}")
            registers.append(words[-1])
        elif parameter.is_constexpr or values[index] is not None:
            words.append(f"{parameter.name}={values[index]}")
        if parameter.is_constexpr and parameter.name not in MINOR:
            # That programs share the depth changes the code; how many do, a number in it.
            config.append("SPLIT>1" if parameter.name == "SPLIT" and values[index] > 1 else words[-1])
        if parameter.name in ENDING or parameter.name.startswith("BLOCK_"):
            registers.append(words[-1])
    loop = f"{content['options']['num_warps']} warps, {content['options']['num_stages']} stages"
    text = f"{', '.join(words)}; {loop}; {first}"
    pointers = sum(kind.startswith("*") for kind in content["signature"].values())
    parts = next((values[i] for i, parameter in enumerate(fn.jit_function.params) if parameter.name == "PARTS"), 1)
    # A wave of 64 threads, as AMD's, has half as many sums in each.
    scarce = parts > 1 and ARCHITECTURES[arch].target.warp_size == 32
    hungry = f"{', '.join(registers)}; {loop}" if scarce else ""
    return Variant(arch, fn.module, fn.name, data, text, f"{', '.join(config)}; {loop}", pointers, hungry)


def smallest_set(found: Sequence[Variant]) -> list[Variant]:
    """Of every kernel's config the variant that has most to do, by its tensors and then by a GELU.

    And of tiles that leave few registers one with each combination of types, activation, and depth that its steps
    divide or do not: which of these takes the most cannot be told without compiling them.
    """
    best: dict[tuple[str, str, str], Variant] = {}
    for variant in sorted(found, key=lambda v: (v.pointers, "ACTIVATION=gelu" in v.text)):
        best[variant.arch, variant.kernel, variant.config] = variant
    chosen = set(best.values())
    covered = {(one.arch, one.kernel, one.hungry) for one in chosen}
    for variant in found:
        key = variant.arch, variant.kernel, variant.hungry
        if variant.hungry and key not in covered:
            covered.add(key)
            chosen.add(variant)
    return [variant for variant in found if variant in chosen]
