"""What a kernel's machine code says: its matrix instructions, asynchronous copies, spills, and how it rounds."""

import re
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from triton import knobs

NVIDIA_MATRIX = {
    "int8": re.compile(r"\b(IMMA|IGMMA|UTCIMMA)\b"),
    "float": re.compile(r"\b(HMMA|HGMMA|UTCHMMA)\b"),
}
AMD_MATRIX = {
    "int8": re.compile(r"\b(v_mfma_i32)_\w+_i8\b"),
    "float": re.compile(r"\b(v_mfma_f32)_\w+"),
}
COPY = re.compile(r"\b(LDGSTS|UTMALDG|UBLKCP)\b")
LOCAL_MEMORY = re.compile(r"\b(LDL|STL)\b")
# 1.5 * 2^23, whose addition rounds (`sparseq_kernels.triton.numerics`), as each assembler writes it: in PTX, in hex,
# as the number, or as two half precision numbers.
MAGIC = re.compile(r"0f4B400000|0x4b400000|\b12582912\b|\b14\.5, 0\b", re.IGNORECASE)
_MULTIPLY_ADD = re.compile(r"FFMA|fma\.|v_(pk_)?(fma|mad)\w*_f32")
_MOVE = re.compile(r"U?MOV|IMAD\.MOV|HFMA2|mov\.|[sv]_mov")
_LINE = re.compile(r"^\s*(?:/\*\w+\*/\s*)?(?:@!?\S+\s+)?(?P<op>[A-Za-z_][\w.:]*)\s+(?P<operands>[^;/]*)")
_REGISTER = re.compile(r"%\w+|\bU?R\d+\b|\b[sv]\d+\b|\b[sv]\[\d+:\d+\]")


@dataclass(frozen=True)
class Product:
    """A kernel's matrix product as its source has it. kind: "int8", or "float" for any other that matrix units have,
    which is every one but that of fp32 in full precision ("ieee"): its kind is None."""

    kind: str | None


@dataclass(frozen=True)
class Resources:
    """Of one kernel. registers: a thread's. spilled: bytes of memory a thread has in place of registers. scalars: how
    many registers of a whole wave are kept in lanes of vector registers (AMD)."""

    registers: int
    spilled: int
    scalars: int = 0


def product(ttir: str) -> Product | None:
    """The product of a kernel's Triton IR; None if it has none."""
    found = re.search(r"tt\.dot .*inputPrecision = (\w+) : tensor<\w*x(\w+)> \* tensor<\w*x(\w+)>", ttir)
    if found is None:
        return Product("float") if "tt.dot" in ttir else None
    precision, a, _ = found.groups()
    if a == "i8":
        return Product("int8")
    return Product(None if a == "f32" and precision == "ieee" else "float")


def rounds(ttir: str) -> bool:
    """Whether a kernel rounds by adding MAGIC."""
    return MAGIC.search(ttir) is not None


def fused_roundings(assembly: str) -> int:
    """How many instructions of PTX, SASS or AMD's assembly multiply and round by MAGIC at once, the product unrounded.
    Follows MAGIC through registers in the order of the text."""
    holding: set[str] = set()
    count = 0
    for line in assembly.splitlines():
        if (found := _LINE.match(line)) is None:
            continue
        op, operands = found["op"], found["operands"]
        named = [register for text in _REGISTER.findall(operands) for register in _each(text)]
        magic = MAGIC.search(operands) is not None
        if _MOVE.match(op):
            # What is moved is MAGIC, or another register that holds it.
            target, sources = named[:1], named[1:]
            holding -= set(target)
            if magic or holding & set(sources):
                holding |= set(target)
            continue
        first = _REGISTER.match(operands.strip())
        targets = _each(first[0]) if first else []
        # What fmac adds to is what it writes to.
        read = named if "fmac" in op else named[len(targets) :]
        if _MULTIPLY_ADD.match(op) and (magic or holding & set(read)):
            count += 1
        holding -= set(targets)
    return count


def _each(register: str) -> list[str]:
    """The registers of a name: v[4:5] is v4 and v5."""
    if (found := re.fullmatch(r"([sv])\[(\d+):(\d+)\]", register)) is None:
        return [register]
    return [f"{found[1]}{i}" for i in range(int(found[2]), int(found[3]) + 1)]


def amd_resources(assembly: str) -> Resources:
    def largest(name: str) -> int:
        return max(int(value) for value in re.findall(rf"\.{name}:\s*(\d+)", assembly))

    spilled = max(4 * largest("vgpr_spill_count"), largest("private_segment_fixed_size"))
    return Resources(largest("vgpr_count"), spilled, largest("sgpr_spill_count"))


def nvidia_resources(cubin: bytes) -> Resources:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = _run(knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name)
    found = {name: int(value) for name, value in re.findall(r"\b(REG|STACK|LOCAL):(\d+)", text)}
    return Resources(found["REG"], found["STACK"] + found["LOCAL"])


def nvidia_assembly(kernels: Sequence[Any]) -> list[str]:
    """The SASS of compiled kernels, all of one architecture. The disassembler takes half a second to start and little
    more to work, so it gets the instructions of all of them as one."""
    if not kernels:
        return []
    codes = [_instructions(kernel.asm["cubin"]) for kernel in kernels]
    target = re.search(r"^\.target (\w+)", kernels[0].asm["ptx"], re.MULTILINE)
    assert target is not None
    with tempfile.NamedTemporaryFile(suffix=".bin") as file:
        file.write(b"".join(codes))
        file.flush()
        name = target[1].replace("sm_", "SM")
        lines = _run(knobs.nvidia.nvdisasm.path, "--binary", name, file.name).splitlines()
    ends, end = [], 0
    for code in codes:
        end += len(code)
        ends.append(end)
    parts: list[list[str]] = [[] for _ in codes]
    part = 0
    for line in lines:
        if found := re.match(r"\s*/\*([0-9a-f]{4,})\*/", line):
            while int(found[1], 16) >= ends[part]:
                part += 1
            parts[part].append(line)
    if not all(parts):
        raise ValueError(f"nvdisasm gave no instructions for {parts.count([])} of {len(parts)} kernels")
    return ["\n".join(part) for part in parts]


def _run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _instructions(cubin: bytes) -> bytes:
    """The .text section of an ELF file that holds one kernel."""
    (table,) = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names = struct.unpack_from("<HHH", cubin, 0x3A)

    def section(index: int) -> tuple[int, int, int]:
        """(where its name is, where it is, its length)"""
        name, _, _, _, offset, length = struct.unpack_from("<IIQQQQ", cubin, table + index * size)
        return name, offset, length

    strings = section(names)[1]
    for index in range(count):
        name, offset, length = section(index)
        if cubin.startswith(b".text.", strings + name):
            return cubin[offset : offset + length]
    raise ValueError("a compiled kernel has no .text section")
