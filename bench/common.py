"""What every benchmark shares: the machine, the files that results go to, the programs' command line."""

import argparse
import functools
import json
import os
import platform
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from sparseq.timing import alternate

__all__ = [
    "RESULTS",
    "alternate",
    "arguments",
    "commit",
    "describe",
    "finish",
    "machine",
    "read_results",
    "smallest_asked",
    "write_result",
]

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
# What decides which int8, fp32 and bf16 arithmetic a processor has.
FLAGS = (
    "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimd",
    "asimddp", "i8mm", "bf16", "sve",
)  # fmt: skip
# The strongest of them as a part of a result's file name: one name may stand for several generations of processors.
_UNITS = (
    ("amx_int8", "amx"), ("avx512_bf16", "avx512-bf16"), ("avx512_vnni", "avx512-vnni"), ("avx512f", "avx512"),
    ("avx2", "avx2"), ("i8mm", "i8mm"), ("asimddp", "dotprod"), ("asimd", "neon"),
)  # fmt: skip
PACKAGES = (
    "torch",
    "triton",
    "numpy",
    "transformers",
    "pytest-benchmark",
    "torchao",
    "onnxruntime",
    "openvino",
    "nncf",
)


def machine(gpu: bool = False) -> dict[str, Any]:
    """Processor, its family and model, cores this process may use, threads that torch uses, flags of FLAGS, memory,
    system, load; with `gpu` also what `gpu_machine` says."""
    information = _cpuinfo()
    flags = set((information.get("flags") or information.get("Features") or "").split())
    return (gpu_machine() if gpu else {}) | {
        "cpu": information.get("model name") or platform.processor() or platform.machine(),
        **_model(information),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1),
        "system": platform.platform(),
        "load_average": round(os.getloadavg()[0], 2),
    }


def _model(information: Mapping[str, str]) -> dict[str, str]:
    """What tells generations of one name apart, where the system says it."""
    if "cpu family" not in information:
        return {}
    return {"cpu_model": f"family {information['cpu family']}, model {information['model']}"}


def gpu_machine() -> dict[str, Any]:
    """The current GPU: name, driver, CUDA's version, architecture, processors, memory, cache."""
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "gpu": torch.cuda.get_device_name(),
        "driver": _driver(),
        "cuda": torch.version.cuda or torch.version.hip,
        "capability": ".".join(map(str, torch.cuda.get_device_capability())),
        "processors": properties.multi_processor_count,
        "gpu_memory_gb": round(properties.total_memory / 2**30, 1),
        "cache_mb": round(getattr(properties, "L2_cache_size", 0) / 2**20, 1),
    }


@functools.cache
def _driver() -> str:
    """The driver's version, from its own tool; "unknown" without it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return (done.stdout.split() or ["unknown"])[0]


def _cpuinfo() -> dict[str, str]:
    """The first processor's entries of /proc/cpuinfo; empty where there is none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
    except OSError:
        return {}
    return {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}


def versions() -> dict[str, str]:
    """Of Python and the packages that timings depend on, as installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The git commit, with "+changes" where tracked files differ from it. SPARSEQ_COMMIT overrules it, for a copy that
    was taken without its history; "unknown" outside a repository."""
    if given := os.environ.get("SPARSEQ_COMMIT"):
        return given

    def git(*words: str) -> str:
        command = ["git", "-C", str(ROOT), *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def slug(described: Mapping[str, Any]) -> str:
    """A machine's part of a file name, of what decides what a time means: the GPU, or the processor, its instructions
    and the threads."""
    if "gpu" in described:
        return words(described["gpu"])
    units = [name for flag, name in _UNITS if flag in described["flags"]][:1]
    return "-".join([words(described["cpu"]), *units, f"{described['threads']}t"])


def words(name: str) -> str:
    """A processor's name as a part of a file name."""
    plain = re.sub(r"\((R|TM|C)\)", "", name, flags=re.IGNORECASE)
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


def write_result(
    name: str,
    rows: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    folder: Path | None = None,
    gpu: bool = False,
) -> Path:
    """Writes `<folder>/<name>-<slug>.json`, whole or not at all; returns its path. The slug is the machine's.

    rows: the measurements, each a `case` (what was measured) beside `Comparison.as_dict`'s keys and others. gpu:
    whether they were taken on the GPU.
    """
    about = describe(gpu)
    path = (folder or RESULTS) / f"{name}-{slug(about['machine'])}.json"
    write_json(path, {"name": name, **about, "settings": dict(settings), "rows": list(rows)})
    return path


def describe(gpu: bool) -> dict[str, Any]:
    """Where, with what and when results are taken: `machine`, `versions`, `commit` and `date`."""
    date = time.strftime("%Y-%m-%d", time.gmtime())
    return {"machine": machine(gpu), "versions": versions(), "commit": commit(), "date": date}


def write_json(path: Path, content: Any) -> None:
    """Writes the file whole or not at all, and the folder if there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(unfinished, path)


def read_results(name: str, folder: Path | None = None, kind: str | None = None) -> list[dict[str, Any]]:
    """The results of that name, in the order of their file names: of all machines, or of those whose `kind` is "cpu" or
    "gpu"."""
    files = sorted((folder or RESULTS).glob(f"{name}-*.json"))
    found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    return [result for result in found if result["name"] == name and kind in (None, _kind(result))]


def _kind(result: Mapping[str, Any]) -> str:
    return "gpu" if "gpu" in result.get("machine", ()) else "cpu"


def smallest_asked() -> bool:
    """Whether the environment asks for one run of the smallest case, for correctness alone (SPARSEQ_BENCH=ci)."""
    return os.environ.get("SPARSEQ_BENCH") == "ci"


def arguments(description: str, rounds: int, argv: Sequence[str] | None, *add: Any) -> argparse.Namespace:
    """The switches of a benchmark that runs as a program; `add` functions bring the benchmark's own."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--rounds", type=int, default=rounds, help="alternating rounds a case")
    parser.add_argument("--threads", type=int, help="threads of torch; as torch chooses if not given")
    parser.add_argument(
        "--smallest", action="store_true", help="the smallest case once, for correctness; writes only where --out says"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the result file goes, if not results/")
    for extend in add:
        extend(parser)
    given = parser.parse_args(argv)
    given.smallest = given.smallest or smallest_asked()
    if given.smallest:
        given.rounds = 1
    if given.threads:
        torch.set_num_threads(given.threads)
    return given


def finish(
    name: str, rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], given: argparse.Namespace
) -> None:
    """Writes a program's result file, unless it only ran the smallest case."""
    if not given.smallest or given.out:
        print(f"written: {write_result(name, rows, settings, given.out)}")


def finish_counted(
    name: str, rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], given: argparse.Namespace
) -> None:
    """The same for what is counted, and so depends on no machine: `<name>-packed.json`."""
    if given.smallest and not given.out:
        return
    about = {name: value for name, value in describe(gpu=False).items() if name != "machine"}
    about["versions"] = {"torch": about["versions"]["torch"]}
    path = (given.out or RESULTS) / f"{name}-packed.json"
    write_json(path, {"name": name, **about, "settings": dict(settings), "rows": list(rows)})
    print(f"written: {path}")
