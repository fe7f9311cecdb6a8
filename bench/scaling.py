"""Matrix factorization in 1, 2 and 4 processes on this machine: speed, bytes exchanged and memory.

Speed is that of the epochs after the first, without validation. The bytes are those that one process sends in one
step, three times: by a formula, as the program counts its messages, and as the kernel counted them on the process's
TCP sockets. Memory is the peak of a process while it trains, less what it had after a training of two ratings,
on tables of a million rows; at the end, the first process has gathered the tables. Cores that all processes share
show what the exchange costs.
"""

import argparse
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bench.measure import PROJECT, heading, table
from recsys.data.interactions import Interactions

TCP_BYTES_ACKED = 120  # where struct tcp_info has them, as 64 bits
WAYS = ("blocks", "row"), ("batches", "none"), ("batches", "row")  # learners of CPUs and of GPUs, and sharding
BLOCKS = 16  # of users and of items, in the first of them
SETTINGS = {"learning_rate": 0.05, "regularization": 0.06, "batch_size": 8192, "patience": 8}
Columns = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]


def peak_bytes() -> int:
    """The most memory that this process had since `forget_peak`."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def forget_peak() -> int:
    """Lets the peak begin anew with what is in use now, and returns that."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return peak_bytes()


def socket_bytes() -> int:
    """Bytes that have arrived at the other ends of this process's TCP connections."""
    total = 0
    for path in Path("/proc/self/fd").iterdir():
        if not path.is_socket():
            continue
        with socket.socket(fileno=os.dup(int(path.name))) as link:
            if link.type == socket.SOCK_STREAM and link.family in (socket.AF_INET, socket.AF_INET6):
                told = link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_BYTES_ACKED + 8)
                total += struct.unpack_from("Q", told, TCP_BYTES_ACKED)[0]
    return total


def rank(folder: Path) -> None:
    """One process of a training: what it saw goes to a file."""
    from recsys.distributed.checkpoints import Checkpoints
    from recsys.distributed.context import Context
    from recsys.distributed.process_group import join_group
    from recsys.models.matrix_factorization.batch_learner import BatchLearner
    from recsys.models.matrix_factorization.block_exchange import BlockExchange
    from recsys.models.matrix_factorization.config import Config
    from recsys.models.matrix_factorization.distributed import fit_factors_distributed
    from recsys.models.matrix_factorization.training import Problem

    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    rows = Interactions(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("users", "items", "ratings")))
    config, sizes = Config(**job["settings"]), (job["sizes"][0], job["sizes"][1])
    with join_group(os.environ, "cpu", 600) as group:
        seen: list[tuple[int, int, int, int]] = []  # at the first step and at the last: to look takes long
        of_epoch = BLOCKS if job["learner"] == "blocks" else -(-len(rows) // config.batch_size)
        last = config.epochs * of_epoch  # the end of the last epoch

        def beat(step: int, waiting: bool) -> None:
            if waiting and step in (0, last):
                seen.append((step, socket_bytes(), group.traffic.sent, peak_bytes()))

        few = Interactions(rows.users[:2] % 100, rows.items[:2] % 100, rows.ratings[:2] % 100)
        checkpoints = Checkpoints(folder / "checkpoints", "", group, 1e9)
        context = Context(group, checkpoints, job["sharding"])
        make: Any = {"blocks": BlockExchange, "batches": BatchLearner}[job["learner"]]
        # PyTorch imports much only when it is used.
        fit_factors_distributed(context, Problem(few, (100, 100), config, 0), make=make)
        context, before = Context(group, checkpoints, job["sharding"], beat=beat), forget_peak()
        _, history, _ = fit_factors_distributed(context, Problem(rows, sizes, config, 0), make=make)
        steps = seen[-1][0] - seen[0][0]
        answer = {
            "seconds": [epoch.seconds for epoch in history],
            "on_sockets": (seen[-1][1] - seen[0][1]) / steps,
            "counted": (seen[-1][2] - seen[0][2]) / steps,
            "memory": seen[-1][3] - before,
            "at_the_end": peak_bytes() - before,
            "rmse": history[-1].train_rmse,
        }
        (folder / f"answer-{group.rank}.json").write_text(json.dumps(answer), encoding="utf-8")


def trained(
    columns: Columns, sizes: tuple[int, int], size: int, learner: str, sharding: str, **settings: Any
) -> list[dict[str, Any]]:
    """What each of `size` processes saw in a training."""
    with tempfile.TemporaryDirectory() as name, socket.socket() as probe:
        folder = Path(name)
        for column, values in zip(("users", "items", "ratings"), columns, strict=True):
            np.save(folder / f"{column}.npy", values)
        job = {"sizes": sizes, "learner": learner, "sharding": sharding, "settings": SETTINGS | settings}
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        probe.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(probe.getsockname()[1]), "WORLD_SIZE": str(size)}
        probe.close()
        program = [sys.executable, "-m", "bench.scaling", "--rank", name]
        place["NUMBA_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // size))  # as the launcher does
        ranks = [
            subprocess.Popen(program, cwd=PROJECT, env=os.environ | place | {"RANK": str(number)})
            for number in range(size)
        ]
        try:
            for process in ranks:
                if process.wait(900):
                    raise RuntimeError("a process of the training failed: see above")
        finally:
            for process in ranks:
                process.kill()
        return [json.loads((folder / f"answer-{number}.json").read_text(encoding="utf-8")) for number in range(size)]


def arithmetic(sizes: tuple[int, int], embedding_size: int, batch: float, size: int, learner: str, way: str) -> float:
    """Bytes that a process sends in a step, for factors, biases and the linear layer of 4 bytes and codes of 8.

    Blocks: with a power of two of processes, all those of items that a process has, with a penalty beside the bias,
    each time that it has met them: between two epochs only where the order of the turns says so. Batches, whole
    tables: their gradient goes around a ring, twice. Split tables: of each row of the batch, to and from all others,
    two codes; twice, since gloo scatters so, two looked-up rows of factors and a bias; and their gradients.
    """
    row, others = (embedding_size + 1) * 4, size - 1
    if learner == "blocks":
        times = others + others / size  # an epoch
        width = -(-embedding_size // 16) * 16 + 2
        return times / size * (-(-sizes[1] // BLOCKS) + 1) * width * 4
    if way == "none":
        return 2 * others / size * ((sum(sizes) + 2) * row + embedding_size * 4)
    return others / size * batch * (2 * 8 + 2 * 2 * row + 2 * row)


def speed(columns: Columns, embedding_size: int, epochs: int, counts: list[int]) -> None:
    """Print rows a second and bytes a step."""
    from recsys.models.matrix_factorization import compiled, sgd
    from recsys.models.matrix_factorization.config import Config
    from recsys.models.matrix_factorization.training import Problem

    sizes = int(columns[0].max()) + 1, int(columns[1].max()) + 1
    given: dict[str, Any] = {**SETTINGS, "embedding_size": embedding_size, "epochs": epochs, "device": "cpu"}
    rows = []
    alone: dict[str, float] = {}
    for learner, engine in (("blocks", compiled), ("batches", sgd)):
        _, history, _ = engine.fit_factors(
            Problem(
                Interactions(columns[0].astype(np.int32), columns[1].astype(np.int32), columns[2]),
                sizes,
                Config(**given),
                0,
            )
        )
        alone[learner] = len(columns[2]) / min(epoch.seconds for epoch in history[1:])
        rows.append([f"{learner}, without a group", 1, f"{alone[learner]:,.0f}", "", "", "", ""])
    batch = len(columns[2]) / -(-len(columns[2]) // int(SETTINGS["batch_size"]))  # rows of a step, on average
    for learner, sharding in WAYS:
        for size in counts:
            answers = trained(columns, sizes, size, learner, sharding, embedding_size=embedding_size, epochs=epochs)
            rate = len(columns[2]) / min(answers[0]["seconds"][1:])
            told = arithmetic(sizes, embedding_size, batch, size, learner, sharding)
            sent = [float(np.mean([answer[kind] for answer in answers])) for kind in ("counted", "on_sockets")]
            figures = [f"{count / 1e6:.3f}" for count in (told, *sent)]
            name = f"{learner}, sharding={sharding}"
            rows.append([name, size, f"{rate:,.0f}", f"{alone['blocks'] / rate:.2f}", *figures])
    columns_ = ["", "processes", "rows/s", "time to one process of blocks"]
    print(table([*columns_, "MB sent a step: formula", "counted", "on sockets"], rows))


def memory(n_users: int, n_items: int, embedding_size: int, counts: list[int]) -> None:
    """Print the memory that a process needs for large tables."""
    random = np.random.default_rng(0)
    n = 2 * int(SETTINGS["batch_size"])
    columns = (
        random.integers(0, n_users, n),
        random.integers(0, n_items, n),
        random.integers(1, 6, n).astype(np.float64),
    )
    megabytes = (n_users + n_items + 2) * (embedding_size + 1) * 4 / 1e6
    rows = []
    for learner, sharding in WAYS:
        first = 0.0
        for size in counts:
            answers = trained(
                columns, (n_users, n_items), size, learner, sharding, embedding_size=embedding_size, epochs=1
            )
            most = max(answer["memory"] for answer in answers) / 1e6
            first = first or most
            end = answers[0]["at_the_end"] / 1e6
            rows.append([f"{learner}, sharding={sharding}", size, f"{most:,.0f}", f"{most / first:.2f}", f"{end:,.0f}"])
    print(f"Tables of {n_users + n_items:,} rows of {embedding_size} factors and a bias: {megabytes:,.0f} MB\n")
    print(table(["", "processes", "MB a process, most of any", "share of one's", "first process, at the end"], rows))


def main(given: argparse.Namespace) -> None:
    """Measure both and print the tables."""
    from recsys.data.movielens import obtain
    from recsys.data.ratings import read_ratings
    from steps.support.entrypoint import data_folder

    ratings = read_ratings(obtain(given.ratings, data_folder() / "downloads"))
    rows = ratings.load()
    columns = rows.users.astype(np.int64), rows.items.astype(np.int64), rows.values
    print(heading(f"Processes, {given.ratings}, {given.embedding_size} factors", ["torch", "numpy"]))
    speed(columns, given.embedding_size, given.epochs, given.processes)
    memory(given.users, given.items, 64, given.processes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ratings", default="movielens-1m")
    parser.add_argument("--embedding-size", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=3, help="the first of them is not measured")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--users", type=int, default=700_000, help="rows of the large tables")
    parser.add_argument("--items", type=int, default=300_000)
    parser.add_argument("--rank", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank:
        rank(arguments.rank)
    else:
        main(arguments)
