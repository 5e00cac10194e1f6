"""Altered model folders: every node of a header, of its layout and of config.json deleted, retyped or exaggerated, and
the checksums made right again, as whoever alters a file can do.

As a program it tries all alterations of all formats and prints how many ended how: `python tests/altered.py [format]`;
its exit status is 1 if any ended badly.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparseq import calibrate, convert, load, pack, save
from sparseq.checkpoint.header import DTYPES
from sparseq.errors import InputError

IDS = torch.tensor([[2, 7, 9, 3, 0], [2, 11, 3, 0, 0]])
# Address space beyond what the process has when the first file is loaded, and seconds for one file.
MEMORY, SECONDS = 2 * 2**30, 10
GOOD_ENDS = ("refused", "the same numbers")


@dataclass
class Folder:
    """A model folder taken apart. header: without the metadata. layout: the entry "sparseq", parsed."""

    header: dict[str, Any]
    metadata: dict[str, Any]
    layout: Any
    data: bytes
    config: Any

    @classmethod
    def read(cls, path: Path) -> Folder:
        whole = (path / "model.safetensors").read_bytes()
        start = 8 + int.from_bytes(whole[:8], "little")
        header = json.loads(whole[8:start])
        metadata = header.pop("__metadata__")
        layout = json.loads(metadata.pop("sparseq"))
        config = path / "config.json"
        return cls(header, metadata, layout, whole[start:], json.loads(config.read_text()) if config.exists() else None)

    def write(self, path: Path, config_text: str | None = None, layout_text: str | None = None) -> None:
        """Writes it with checksums that hold; texts stand for what no JSON value can be."""
        layout, metadata = copy.copy(self.layout), copy.copy(self.metadata)
        if self.config is not None:
            text = json.dumps(self.config, indent=2) if config_text is None else config_text
            (path / "config.json").write_text(text)
            if isinstance(layout, dict) and isinstance(layout.get("config"), str) and len(layout["config"]) == 64:
                layout["config"] = hashlib.sha256(text.encode()).hexdigest()
        header = self.header
        if isinstance(metadata, dict):
            metadata.setdefault("sparseq", json.dumps(layout) if layout_text is None else layout_text)
            if isinstance(metadata.get("sha256"), str) and len(metadata["sha256"]) == 64:
                metadata["sha256"] = self._checksum(metadata)
        if isinstance(header, dict):
            header = {"__metadata__": metadata, **header}
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        (path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + self.data)

    def _checksum(self, metadata: dict[str, Any]) -> str:
        stated = {name: text for name, text in metadata.items() if name != "sha256"}
        digest = hashlib.sha256(json.dumps(stated, sort_keys=True).encode())
        for name, entry in sorted(self.header.items()) if isinstance(self.header, dict) else ():
            try:
                (start, end), dtype = entry["data_offsets"], DTYPES[entry["dtype"]]
                digest.update(json.dumps([name, str(dtype), entry["shape"]]).encode())
                digest.update(self.data[start:end])
            except (KeyError, TypeError, ValueError):
                continue
        return digest.hexdigest()


def alterations(value: Any) -> Iterator[tuple[str, Any]]:
    """(what was done, the altered value) of one node that is no container's only content."""
    for other in (None, True, 0, 1, 0.5, "x", [], {}, [value], {"x": value}, str(value)):
        if type(other) is not type(value):
            yield f"retyped to {type(other).__name__}", other
    if type(value) is int:
        if abs(value) < 2**53:
            yield "retyped to float", float(value)
        for other in (-1, -(10**15), value + 1, 2 * value + 1, 10**4, 10**6, 10**9, 2**31, 2**62, 10**18, 10**30):
            if other != value:
                yield "exaggerated", other
    elif type(value) is float:
        for other in (-1.0, 1e3, 1e30, 1e300):
            yield "exaggerated", other
    elif type(value) is str:
        for other in ("", value + "x", value * 1000, "../" + value, "\x1b[31m", "\ud800"):
            if other != value:
                yield "exaggerated", other
    elif type(value) is list:
        for other in ([], value + value, value * 1000):
            if other != value:
                yield "exaggerated", other
        deep: Any = value
        for _ in range(200):
            deep = [deep]
        yield "exaggerated", deep
    elif type(value) is dict:
        yield "exaggerated", {**value, "x": 1}
        yield "exaggerated", {**value, "x" * 10**5: None}
        if value:
            yield "exaggerated", {}


def nodes(tree: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """(path, value) of every node below the root."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield (*path, key), value
        yield from nodes(value, (*path, key))


def changed(tree: Any, path: tuple[Any, ...], value: Any, delete: bool = False) -> Any:
    """A copy of the tree with another value, or none, at the path."""
    tree = parent = copy.copy(tree)
    for key in path[:-1]:  # All else is shared: nothing is changed in place.
        child = parent[key] = copy.copy(parent[key])
        parent = child
    if delete:
        del parent[path[-1]]
    else:
        parent[path[-1]] = value
    return tree


def renamed(tree: Any, path: tuple[Any, ...], key: str) -> Any:
    """A copy of the tree with another name for the value at the path."""
    value = tree
    for step in path:
        value = value[step]
    return changed(changed(tree, path, None, delete=True), (*path[:-1], key), value)


def variants(folder: Folder, part: str) -> Iterator[tuple[str, str, Callable[[], Folder]]]:
    """(where, what was done, what makes the altered folder) for every node of one of PARTS."""
    tree = getattr(folder, part)
    for path, value in nodes(tree):
        where = ".".join(map(str, (part, *path)))
        if isinstance(path[-1], str):
            for key in ("x" + path[-1], path[-1] * 1000, "\x1b[31m" + path[-1]):
                yield where, "renamed", lambda path=path, key=key: replace(folder, **{part: renamed(tree, path, key)})
        yield where, "deleted", lambda path=path: replace(folder, **{part: changed(tree, path, None, delete=True)})
        for what, other in alterations(value):
            yield where, what, lambda path=path, other=other: replace(folder, **{part: changed(tree, path, other)})
    for what, other in alterations(tree):
        yield part, what, lambda other=other: replace(folder, **{part: other})


PARTS = ("header", "metadata", "layout", "config")


def classifier(kind: str = "SequenceClassification", **changes: Any) -> Any:
    import transformers

    torch.manual_seed(0)
    settings = {"vocab_size": 16, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    settings |= {"intermediate_size": 16, "max_position_embeddings": 8, "pad_token_id": 0, **changes}
    return getattr(transformers, f"BertFor{kind}")(transformers.BertConfig(**settings)).eval()


def _calibrated(**settings: Any) -> nn.Module:
    return calibrate(convert(classifier(), activation="static", **settings), [{"input_ids": IDS}])


FORMATS: dict[str, Callable[[], nn.Module]] = {
    "plain": classifier,
    "plain bf16": lambda: classifier().bfloat16(),
    "plain tied": lambda: classifier("MaskedLM"),
    "training": lambda: convert(classifier(), sparsity=0.5, pattern="4x4"),
    "training lsq static": lambda: _calibrated(sparsity=0.5, scale="lsq"),
    "training bf16 embeddings": lambda: convert(classifier().bfloat16(), sparsity=0.5, prune_embeddings=True),
    **{
        f"packed int{bits} {name}": lambda bits=bits, more=more: pack(convert(classifier(), bits=bits, **more))
        for bits in (4, 8, 16)
        for name, more in {
            "dense": {},
            "bitmask": {"sparsity": 0.6},
            "blocks": {"sparsity": 0.6, "pattern": "4x4"},
        }.items()
    },
    "packed 2:4": lambda: pack(convert(classifier(), sparsity=0.5, pattern="2:4")),
    "packed static": lambda: pack(_calibrated(sparsity=0.5)),
    "packed float": lambda: pack(convert(classifier(), bits=None, sparsity=0.6)),
    "packed bf16": lambda: pack(convert(classifier().bfloat16(), sparsity=0.6, pattern="4x4")),
    "packed tied": lambda: pack(convert(classifier("MaskedLM"))),
}  # fmt: skip


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model(IDS).logits.float()
    return result


def outcome(path: Path, wanted: torch.Tensor) -> str:
    """How loading the folder ends: "refused", "the same numbers", or what should not be."""
    start = time.monotonic()
    try:
        model = load(path)
    except InputError as error:
        message = str(error)
        if len(message) > 1000 or not message.isprintable():
            return f"refused with a message that no terminal should get: {message[:80]!a}"
        return "refused" if time.monotonic() - start < SECONDS else "refused too late"
    except BaseException as error:
        return f"{type(error).__name__}"
    try:
        found = logits(model)
    except Exception as error:
        return f"fails in forward: {type(error).__name__}"
    if time.monotonic() - start > SECONDS:
        return "loaded too slowly"
    # Two loads of a model may multiply by memory that is aligned otherwise, and so round otherwise.
    same = found.shape == wanted.shape and torch.allclose(found, wanted, rtol=1e-5, atol=1e-6)
    return "the same numbers" if same else "other numbers"


def bounded_memory() -> None:
    """From here on the process gets no more than MEMORY bytes of address space."""
    own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (own + MEMORY, own + MEMORY))


def tried(name: str, every: int = 1, parts: tuple[str, ...] = PARTS) -> Iterator[tuple[str, str, str]]:
    """(where, what was done, how it ended) of every so-many-th alteration of a format."""
    with tempfile.TemporaryDirectory() as folder:
        whole, altered = Path(folder) / "whole", Path(folder) / "altered"
        save(FORMATS[name](), whole)
        wanted = logits(load(whole))
        shutil.copytree(whole, altered)
        original = Folder.read(whole)
        number = 0
        for part in parts:
            for where, what, variant in variants(original, part):
                number += 1
                if number % every == 0:
                    variant().write(altered)
                    yield where, what, outcome(altered, wanted)
                    if part == "config" and not (altered / "config.json").exists():
                        shutil.copy(whole / "config.json", altered)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("formats", nargs="*", help=f"of {', '.join(FORMATS)}; all by default")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--parts", nargs="*", default=PARTS)
    parser.add_argument("--show", type=int, default=0, help="so many bad ends, a format")
    chosen = parser.parse_args()
    load_one()
    bounded_memory()
    total: Counter[tuple[str, str, str]] = Counter()
    for name in chosen.formats or FORMATS:
        shown = 0
        for where, what, how in tried(name, chosen.every, tuple(chosen.parts)):
            total[where.split(".")[0], what.split()[0], how] += 1
            if how not in GOOD_ENDS and shown < chosen.show:
                shown += 1
                print(f"{name}: {where} {what}: {how}", file=sys.stderr)
    for (part, what, how), count in sorted(total.items()):
        print(f"{part:10}{what:14}{how:30}{count:8,}")
    for how in sorted({how for *_, how in total}):
        print(f"{'all':24}{how:30}{sum(count for (*_, own), count in total.items() if own == how):8,}")
    return int(any(how not in GOOD_ENDS for *_, how in total))


def load_one() -> None:
    """Loads what is imported and built at first use, before memory is bounded."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("plain", "training", "packed int8 bitmask"):
            save(FORMATS[name](), folder)
            logits(load(folder))


if __name__ == "__main__":
    sys.exit(main())
