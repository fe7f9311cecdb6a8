"""Which device computes: the CPU, or a GPU that PyTorch can use."""

import torch


def find_device(device: str) -> str:
    """The device that `auto` stands for; others as they are."""
    return ("cuda" if has_gpu() else "cpu") if device == "auto" else device


def has_gpu() -> bool:
    """Whether PyTorch can use a GPU here."""
    return torch.cuda.is_available()
