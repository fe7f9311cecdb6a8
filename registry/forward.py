"""What a version says of the newest ratings of its training, by what learnt from those before."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from recsys.arrays import Floats
from registry import replicates

if TYPE_CHECKING:
    from recsys.evaluation.forward import ForwardEvaluation

_MEASURES, _REPLICATES = "forward", "forward_replicates"


@dataclass(frozen=True, eq=False)
class ForwardMeasures:
    """The measures by name, such as `forward_auc`; versions are compared where `digest`, of the rows, is equal.

    `replicates` has those of the AUC by its name, of all rows and of the warm ones, as far as there are any.
    """

    digest: str
    metrics: Mapping[str, float]
    replicates: Mapping[str, Floats]


def forward_tags(measured: "ForwardEvaluation") -> dict[str, str]:
    """As tags of a version; replicates to about 1e-5."""
    found = {"forward_auc": measured.replicates, "forward_warm_auc": measured.warm_replicates}
    packed = {
        name: replicates.pack(values, measured.metrics[name]) for name, values in found.items() if values is not None
    }
    return {
        _MEASURES: json.dumps({"digest": measured.digest, "metrics": measured.metrics}),
        _REPLICATES: json.dumps(packed),
    }


def read_forward(tags: Mapping[str, str]) -> ForwardMeasures | None:
    """What the tags of a version say; None where its training did not measure it."""
    if _MEASURES not in tags:
        return None
    found, packed = json.loads(tags[_MEASURES]), json.loads(tags.get(_REPLICATES, "{}"))
    drawn = {name: replicates.unpack(text, found["metrics"][name]) for name, text in packed.items()}
    return ForwardMeasures(found["digest"], found["metrics"], drawn)


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
