"""Which device computes: the CPU, or a GPU that PyTorch can use."""

import fnmatch
import sys
from pathlib import Path

_GPU_DRIVERS = ("nvidia*", "nvhost*", "nvmap", "kfd", "dxg")  # NVIDIA's, those of its boards, AMD's, Windows' for Linux


def find_device(device: str) -> str:
    """The device that `auto` stands for; others as they are."""
    return ("cuda" if has_gpu() else "cpu") if device == "auto" else device


def has_gpu(devices: Path = Path("/dev")) -> bool:
    """Whether PyTorch can use a GPU here.

    PyTorch takes seconds and 0.2 GB to import. On Linux it is not asked where no driver of a GPU has put a file into
    `devices`.
    """
    names = [path.name for path in devices.glob("*")] if sys.platform == "linux" else []
    if sys.platform == "linux" and not any(fnmatch.filter(names, pattern) for pattern in _GPU_DRIVERS):
        return False
    import torch

    return torch.cuda.is_available()
