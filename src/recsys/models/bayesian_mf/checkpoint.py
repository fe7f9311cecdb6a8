"""The state of a chain on disk, so that a stopped training goes on where it was. Arrays only, no pickle."""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from recsys.arrays import Array
from recsys.data.interactions import Interactions
from recsys.errors import InputError
from recsys.models.base.storage import load_arrays, save_arrays
from recsys.models.bayesian_mf.posterior import Sample

if TYPE_CHECKING:
    from recsys.models.bayesian_mf.gibbs import Chain

FORMAT = 1
SECONDS = 30.0  # between two saves, so that they cost little beside the sweeps


class Keeper:
    """Keeps one chain in a folder, in a file named by what the chain depends on.

    Another chain, of other ratings, settings or seed, has another name: it is never continued by mistake. How many
    samples are wanted is not in the name, so that a finished chain can be made longer.
    """

    def __init__(self, folder: Path, made_by: Mapping[str, object], *parts: Interactions) -> None:
        digest = hashlib.blake2b(json.dumps([FORMAT, dict(made_by)], sort_keys=True).encode(), digest_size=16)
        for rows in parts:
            for column in (rows.users, rows.items, rows.ratings, rows.timestamps):
                digest.update(b"" if column is None else np.ascontiguousarray(column).tobytes())
        self.path = folder / f"chain-{digest.hexdigest()}.npz"
        self._saved = time.monotonic()

    def load(self, chain: "Chain") -> "tuple[list[Sample], list[float]]":
        """Put the chain where it was when it was saved; returns the samples kept and the RMSE after each.

        Without a file the chain stays at its start.

        Raises:
            InputError: if the file cannot be read.
        """
        if not self.path.exists():
            return [], []
        try:
            arrays = load_arrays(self.path)
            chain.restore({name.removeprefix("chain_"): arrays[name] for name in arrays if name.startswith("chain_")})
            columns = {field.name: arrays[f"kept_{field.name}"] for field in fields(Sample)}
            kept = [
                Sample(**{name: _entry(column, row) for name, column in columns.items()})
                for row in range(len(columns["noise"]))
            ]
            return kept, arrays["rmse"].tolist()
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise InputError(
                f"{self.path}: the state of a chain is expected here, but {type(error).__name__}: {error}; delete the "
                "file to start anew"
            ) from None

    def save(self, chain: "Chain", kept: "Sequence[Sample]", rmse: Sequence[float]) -> None:
        """Write the state beside the file, then put it in its place: it is there whole or not at all."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        columns: dict[str, Array] = {f"chain_{name}": value for name, value in chain.state().items()}
        for name in (field.name for field in fields(type(kept[0]) if kept else chain.sample())):
            columns[f"kept_{name}"] = np.array([getattr(draw, name) for draw in kept])
        partial = self.path.with_suffix(".partial.npz")
        save_arrays(partial, rmse=np.array(rmse), **columns)
        partial.replace(self.path)
        self._saved = time.monotonic()

    def is_due(self) -> bool:
        """Whether the last save is long enough ago."""
        return time.monotonic() - self._saved >= SECONDS


def _entry(column: Array, row: int) -> Any:
    """A row, or the number that it is: a NumPy scalar would turn float32 arrays into float64."""
    return column[row] if column.ndim > 1 else float(column[row])
