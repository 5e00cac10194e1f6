"""What a run on a GPU leaves behind: its summary in Markdown, and its results as files of their own."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.common import slug, write_json
from bench.goals import goals
from bench.render import render, table
from sparseq import InputError
from sparseq.terminal import shown


def read_json(path: Path) -> Any:
    """A JSON file's content; None where there is none that can be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def page(steps: Iterable[Sequence[str]], notes: Mapping[str, Any], folder: Path) -> str:
    """The whole summary: how the steps went, the goals, notes, and every op's tables."""
    ops = sorted({path.name.partition("-")[0] for path in folder.glob("*.json")})
    listed = "".join(f"- {name}: {value}\n" for name, value in notes.items())
    parts = ["# A run on a GPU\n", table(["step", "outcome", "seconds"], steps), goals(folder), listed]
    return "\n".join([*parts, *(f"## {op}\n\n{render(op, folder)}" for op in ops)])


def unpack(path: Path, folder: Path) -> None:
    """Writes each result of a results.json to a file of its own."""
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("results"), list):
        raise InputError(f"{path} is not what python -m tools.gpu writes as results.json")
    results = [*filter(None, content["results"]), *_host_result(content)]
    for result in results:
        written = folder / f"{result['name']}-{slug(result['machine'])}.json"
        write_json(written, result)
        print(f"written: {shown(written)}")


def _host_result(content: dict[str, Any]) -> list[dict[str, Any]]:
    """What `tools.gpu_host` found, as a result with a table of its own."""
    host, about = content.get("host"), content.get("machine")
    if not host or not about:
        return []
    first, calls = host["cache_found"], host["host_seconds"]
    cells = {
        "rows": str(host["rows"]),
        "a packed layer's call, us": f"{1e6 * calls['packed']:.0f}",
        "nn.Linear's call, us": f"{1e6 * calls['nn.Linear']:.0f}",
        "first call, compiled before, s": f"{first['first']:.2f}",
        "first call, compiling, s": f"{host['cache_filled']['first']:.2f}",
    }
    head = {"name": "gpu_host", **about, "commit": content["commit"], "date": time.strftime("%Y-%m-%d", time.gmtime())}
    return [head | {"settings": {}, "rows": [{"case": {"rows": host["rows"]}, "host": host, "cells": cells}]}]
