"""Bootstrap replicates of how good a version's lists are, kept as a tag beside those of its AUC."""

from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from mlflow.tracking import MlflowClient

from recsys.arrays import Floats
from recsys.evaluation import PROTOCOL
from recsys.runtime.interruption import uninterrupted
from registry.replicates import pack, stale_keys, unpack
from registry.versions import Version

_PREFIX = f"list_replicates.{PROTOCOL}."


@dataclass(frozen=True, eq=False)
class ListReplicates:
    """Arrays of shape (replicates,): nDCG@10, and how much it is above that of what is popular."""

    ndcg: Floats
    gain: Floats


@uninterrupted()
def record_list_replicates(version: Version, test_digest: str, found: ListReplicates) -> None:
    """Remember the replicates of a version on a test set, to about 1e-4; kept for the newest few test sets."""
    client, number = MlflowClient(), str(version.number)
    key = _PREFIX + test_digest
    kept = [datetime.now(UTC).isoformat(timespec="milliseconds"), _pack(found.ndcg), _pack(found.gain)]
    for stale in stale_keys(version.tags, _PREFIX, key):
        client.delete_model_version_tag(version.name, number, stale)
    client.set_model_version_tag(version.name, number, key, " ".join(kept))


def list_replicates_on(version: Version, test_digest: str) -> ListReplicates | None:
    """The replicates recorded for a test set, None where there are none."""
    recorded = version.tags.get(_PREFIX + test_digest)
    if recorded is None:
        return None
    _, ndcg, gain = recorded.split(" ")
    return ListReplicates(_unpack(ndcg), _unpack(gain))


def _pack(values: Floats) -> str:
    """The middle, and the deviations from it."""
    middle = float(np.nan_to_num(np.nanmean(values)))
    return f"{middle!r},{pack(values, middle)}"


def _unpack(packed: str) -> Floats:
    middle, deviations = packed.split(",")
    return unpack(deviations, float(middle))
