"""The hardware of a run: this process's device, its name, and whether it computes bf16."""

import os
import platform

import torch
import torch.distributed as dist


def processor() -> str:
    """The maker's name of the processor that computes here: the GPU's if there is one, otherwise the CPU's."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(device())
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            named = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        named = []
    return named[0] if named else platform.processor() or platform.machine()


def device() -> torch.device:
    """The device that models run on: this process's GPU if there is one, otherwise the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")) if dist.is_initialized() else 0)
    return torch.device("cpu")


def computes_bf16() -> bool:
    """Whether bf16 products run in hardware: on a GPU with bf16, or a CPU with avx512_bf16 or amx_bf16."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((line.split() for line in file if line.startswith("flags")), [])
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
