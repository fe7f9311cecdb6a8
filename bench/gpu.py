"""The Gibbs sampler on a GPU beside the CPU, on a synthetic set of the size of MovieLens 20M.

Says so and measures nothing where there is no GPU, unless it is told --device cpu.
"""

import argparse
import time

import numpy as np
import torch

from bench.measure import heading, table
from recsys.data.interactions import Interactions
from recsys.models.bayesian_mf.config import Config
from recsys.models.bayesian_mf.gibbs import Chain
from recsys.runtime.device import has_gpu
from recsys.runtime.threads import workers

USERS, ITEMS, RATINGS = 138_493, 26_744, 20_000_263
SWEEPS = 5


def make_ratings(share: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, int, int]:
    """Distinct pairs of unevenly active users and items, with ratings of biases and noise."""
    random = np.random.default_rng(seed)
    n_users, n_items, n = (max(10, int(size * share)) for size in (USERS, ITEMS, RATINGS))
    users = (n_users * random.random(n) ** 2).astype(np.int64)
    items = (n_items * random.random(n) ** 2).astype(np.int64)
    pairs = np.unique(users * n_items + items)
    random.shuffle(pairs)
    users, items = (codes.astype(np.int32) for codes in np.divmod(pairs, n_items))
    bias = random.normal(size=n_users)[users] + random.normal(size=n_items)[items]
    return users, items, bias + random.normal(size=len(users)), n_users, n_items


def settle(device: torch.device) -> None:
    """Wait for what a GPU still has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def rates(device: torch.device) -> tuple[float, float]:
    """GFLOP/s of a large single-precision product and GB/s of a large copy on the device."""
    size = 8192 if device.type == "cuda" else 2048
    square = torch.randn(size, size, device=device)
    flat = torch.empty(1 << (28 if device.type == "cuda" else 26), device=device)
    seconds = []
    for work in (lambda: square @ square, lambda: flat.clone()):
        work()
        settle(device)
        started = time.perf_counter()
        for _ in range(5):
            work()
        settle(device)
        seconds.append((time.perf_counter() - started) / 5)
    return 2 * size**3 / seconds[0] / 1e9, 2 * flat.numel() * 4 / seconds[1] / 1e9


def measure(name: str, ratings: tuple[np.ndarray, np.ndarray, np.ndarray, int, int], factors: int) -> list[str]:
    """A row of the table: set-up, a sweep, and what of the device's rates the sweep's arithmetic and traffic reach."""
    device = torch.device(name)
    matmul, copy = rates(device)
    started = time.perf_counter()
    *columns, n_users, n_items = ratings
    chain = Chain(Interactions(*columns), (n_users, n_items), Config(embedding_size=factors, device=name), seed=0)
    settle(device)
    setup = time.perf_counter() - started
    with workers(name) as each:
        for _ in range(chain.warm_up.start + 1):
            chain.sweep(each)
        settle(device)
        started = time.perf_counter()
        for _ in range(SWEEPS):
            chain.sweep(each)
        settle(device)
        seconds = (time.perf_counter() - started) / SWEEPS
    width = factors + 2
    rows = len(chain.users.factors) + len(chain.items.factors)
    flops = 2 * chain.n * 2 * width**2 + rows * width**3 / 3  # Gram products and Cholesky factors
    traffic = 2 * chain.n * 3 * width * 4 + rows * 4 * width**2 * 4  # gather, write, read; systems, factors
    return [
        name,
        f"{setup:.1f}",
        f"{seconds * 1e3:.0f}",
        f"{flops / seconds / 1e9 / matmul:.0%} of {matmul:,.0f} GFLOP/s",
        f"{traffic / seconds / 1e9 / copy:.0%} of {copy:,.0f} GB/s",
    ]


def main(share: float, factors: int, device: str) -> None:
    """Measure and print."""
    if device == "auto" and not has_gpu():
        print("no GPU that PyTorch can use was found: nothing is measured; --device cpu measures the CPU")
        return
    devices = ["cuda", "cpu"] if device == "auto" else [device]
    ratings = make_ratings(share)
    print(heading(f"{len(ratings[2]):,} synthetic ratings, {factors} factors", ["torch"]))
    if "cuda" in devices:
        print(torch.cuda.get_device_name(), "\n")
    rows = [measure(name, ratings, factors) for name in devices]
    print(table(["device", "set-up s", "ms a sweep", "share of matmul", "share of bandwidth"], rows))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the size of MovieLens 20M")
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto")
    given = parser.parse_args()
    main(given.share, given.factors, given.device)
