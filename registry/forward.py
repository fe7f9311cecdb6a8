"""What a version says of the newest ratings of its training, by what learnt from those before."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from recsys.arrays import Floats
from registry import replicates

if TYPE_CHECKING:
    from recsys.evaluation.forward import ForwardEvaluation

DOCUMENT = "forward.json"
_MEASURES, _REPLICATES = "forward", "forward_replicates"  # tags of the release before


@dataclass(frozen=True, eq=False)
class ForwardMeasures:
    """The measures by name, such as `forward_auc`; versions are compared where `digest`, of the rows, is equal.

    `replicates` has those of the AUC by its name, of all rows and of the warm ones, as far as there are any.
    """

    digest: str
    metrics: Mapping[str, float]
    replicates: Mapping[str, Floats]


def pack_forward(measured: "ForwardEvaluation") -> dict[str, Any]:
    """As a document of a version; replicates to about 1e-5."""
    found = {"forward_auc": measured.replicates, "forward_warm_auc": measured.warm_replicates}
    packed = {
        name: replicates.pack(values, measured.metrics[name]) for name, values in found.items() if values is not None
    }
    return {"digest": measured.digest, "metrics": measured.metrics, "replicates": packed}


def unpack_forward(document: Mapping[str, Any]) -> ForwardMeasures:
    """What `pack_forward` was given."""
    measured = document["metrics"]
    drawn = {name: replicates.unpack(text, measured[name]) for name, text in document["replicates"].items()}
    return ForwardMeasures(document["digest"], measured, drawn)


def forward_of_tags(tags: Mapping[str, str]) -> dict[str, Any] | None:
    """The document that a version of the release before carries as tags; None where it carries none."""
    if _MEASURES not in tags:
        return None
    return {**json.loads(tags[_MEASURES]), "replicates": json.loads(tags.get(_REPLICATES, "{}"))}


def describe_forward(metrics: Mapping[str, float]) -> str:
    """A few words on the measures: AUC and RMSE of all rows, and of the warm ones."""
    rows, warm = (int(metrics[f"forward_{group}rows"]) for group in ("", "warm_"))
    named = "ratings" if "forward_rmse" in metrics else "rows"
    return f"on the newest {rows:,} {named}, learnt from those before: {_shown(metrics, '')}" + (
        f"; on the {warm:,} of known users and items: {_shown(metrics, 'warm_')}" if 0 < warm < rows else ""
    )


def _shown(metrics: Mapping[str, float], group: str) -> str:
    names = ("rmse", "auc", "auc_per_user")
    keys = {name: f"forward_{group}{name}" for name in names}
    return ", ".join(f"{name} {metrics[key]:.4f}" for name, key in keys.items() if key in metrics)
