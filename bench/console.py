"""What `python -m bench run` prints: a table a case."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.kernels.cases import OURS
from bench.roofline import roof

UNITS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))


def seconds(value: float) -> str:
    """A time with its unit, in three digits: "12.3 us"."""
    scale, unit = next((one for one in UNITS if value >= one[0]), UNITS[-1])
    return f"{value / scale:.3g} {unit}"


def rate(value: float, unit: str) -> str:
    """A rate in three digits: "51.2 GB/s", "1.2 TFLOP/s"."""
    scale, prefix = (1e12, "T") if value >= 1e12 else (1e9, "G")
    return f"{value / scale:.3g} {prefix}{unit}"


def machine_lines(result: Mapping[str, Any]) -> list[str]:
    """Machine, versions, backend, and the rates measured on it."""
    machine, settings = result["machine"], result["settings"]
    if "gpu" in machine:
        where = f"{machine['gpu']}, driver {machine['driver']}"
    else:
        flags = ", ".join(flag for flag in machine["flags"] if flag != "fma")
        where = f"{machine['cpu']}, {machine['threads']} of {machine['cores']} cores ({flags})"
    versions = result["versions"]
    software = ", ".join(f"{name} {versions[name]}" for name in ("torch", "triton") if name in versions)
    commit, _, changed = result["commit"].partition("+")
    taken = f"commit {commit[:10]}{' with changes' if changed else ''}"
    lines = [f"{where}; {software}; backend {settings['backend']}; {taken}"]
    ceilings = settings.get("ceilings") or {}
    parts = [f"{unit} {rate(ceilings[unit], 'op/s')}" for unit in ("int8", "bf16", "fp32") if unit in ceilings]
    sizes = {int(size): value for size, value in ceilings.get("bandwidths", {}).items()}
    if sizes:
        small, large = min(sizes), max(sizes)
        parts.append(f"memory {rate(sizes[large], 'B/s')}, {rate(sizes[small], 'B/s')} from cache")
    elif "bandwidth" in ceilings:
        parts.append(f"memory {rate(ceilings['bandwidth'], 'B/s')}")
    measured = [f"measured here: {'; '.join(parts)}"] if parts else []
    return [*lines, *measured, f"{OURS} / it: the ratio of times; below 1 {OURS} is faster"]


def case_lines(row: Mapping[str, Any], title: str) -> list[str]:
    """The case, then for each candidate its median time with a 95 % interval, our time over it, and the fraction of the
    roofline."""
    floor = roof(row)
    head = ["", "median", "95 % interval", f"{OURS} / it", "of the roofline"]
    ratios = {ratio["to"]: ratio for ratio in row["ratios"] if ratio["of"] == OURS}
    lines = [head]
    for name, taken in row["seconds"].items():
        ratio = ratios.get(name)
        lines.append(
            [
                name,
                seconds(taken["median"]),
                f"{seconds(taken['low'])} to {seconds(taken['high'])}",
                f"{ratio['median']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]" if ratio else "",
                f"{floor['seconds'] / taken['median']:.0%}" if floor else "",
            ]
        )
    text = [title, *aligned(lines)]
    if floor:
        text.append(f"  roofline: {seconds(floor['seconds'])} at least, bound by {floor['bound']} ({floor['source']})")
    text += [f"  without {name}: {why}" for name, why in row.get("absent", {}).items()]
    for name, count in row.get("frames", {}).items():
        text.append(f"  Python functions entered by {name}: {count['own']} of its own, {count['all']} in all")
    return text


def aligned(lines: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width, two spaces apart; the first to the left, the others to the right."""
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]

    def padded(line: Sequence[str]) -> list[str]:
        first, *rest = zip(line, widths, strict=True)
        return [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]

    return [f"  {'  '.join(padded(line))}".rstrip() for line in lines]
