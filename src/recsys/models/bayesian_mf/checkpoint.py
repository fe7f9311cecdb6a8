"""The state of a chain on disk, so that a stopped training can continue. Arrays only, no pickle."""

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from recsys.arrays import Array
from recsys.data.interactions import Interactions
from recsys.errors import InputError
from recsys.models.base.storage import load_arrays, save_arrays
from recsys.models.bayesian_mf.config import Config
from recsys.models.bayesian_mf.gibbs import Chain
from recsys.models.bayesian_mf.posterior import SAVED_NAMES, Draw
from recsys.runtime.files import write_atomically

FORMAT = 5
SECONDS = 30.0  # between two saves, so that they cost little time compared with the sweeps
COLUMNS = {field.name: f"kept_{SAVED_NAMES.get(field.name, field.name)}" for field in fields(Draw)}
"""The names under which the parts of a draw are saved."""


class FileCheckpointer:
    """Saves one chain to a file of a folder. The name of the file is a digest of what the chain depends on.

    A chain of other ratings, settings or another seed has another file, so that no chain continues another one. The
    number of draws asked for is not part of the name, so that a finished chain can be made longer.
    """

    def __init__(self, chain: Chain, config: Config, seed: int, parts: Sequence[Interactions]) -> None:
        """`config.chain` is the folder; `parts` are the ratings, and the validation rows if there are any."""
        made_by = {
            "embedding_size": chain.size,
            "implicit": chain.projection is not None,
            "time": chain.sessions is not None,
            "user_noise": chain.weighted,
            "seed": seed,
            "device": chain.backend.device.partition(":")[0],
        }
        digest = hashlib.blake2b(json.dumps([FORMAT, made_by], sort_keys=True).encode(), digest_size=16)
        for rows in parts:
            for column in (rows.users, rows.items, rows.ratings, rows.timestamps):
                digest.update(b"" if column is None else np.ascontiguousarray(column).tobytes())
        self.path = Path(config.chain) / f"chain-{digest.hexdigest()}.npz"
        self._saved = time.monotonic()

    def load(self, chain: Chain) -> tuple[list[Draw], list[float]]:
        """Restore the chain from the file; returns the draws kept and the validation RMSE after each.

        If there is no file, the chain is not changed and both lists are empty.

        Raises:
            InputError: if the file cannot be read.
        """
        if not self.path.exists():
            return [], []
        try:
            arrays = load_arrays(self.path)
            chain.restore({name.removeprefix("chain_"): arrays[name] for name in arrays if name.startswith("chain_")})
            columns = {name: arrays[column] for name, column in COLUMNS.items()}
            kept = [
                Draw(**{name: entry(column, row) for name, column in columns.items()})
                for row in range(len(columns["noise"]))
            ]
            return kept, arrays["rmse"].tolist()
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise InputError(
                f"{self.path}: the state of a chain is expected here, but {type(error).__name__}: {error}; delete the "
                "file to start anew"
            ) from None

    def save(self, chain: Chain, kept: Sequence[Draw], rmse: Sequence[float]) -> None:
        """Replace the file as a whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        columns: dict[str, Array] = {f"chain_{name}": value for name, value in chain.state().items()}
        for name, column in COLUMNS.items():
            columns[column] = np.array([getattr(draw, name) for draw in kept])
        with write_atomically(self.path) as aside:
            save_arrays(aside, rmse=np.array(rmse), **columns)
        self._saved = time.monotonic()

    def is_due(self) -> bool:
        """Whether the last save is at least SECONDS ago."""
        return time.monotonic() - self._saved >= SECONDS


def entry(column: Array, row: int) -> Any:
    """A row, or a Python number instead of a NumPy scalar, which would turn float32 arrays into float64."""
    return column[row] if column.ndim > 1 else float(column[row])
