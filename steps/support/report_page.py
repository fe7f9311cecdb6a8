"""The report of a version: one HTML file that needs nothing beside it, for people who were not there."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recsys.data.dataset import Dataset
from recsys.data.parquet_store import PARTS
from recsys.models.base.recommender import Recommender

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from registry.versions import Version

LISTED, USERS = 10, 3
_REASONS = 3
_LEVEL = 0.95
_DPI = 110
_MEASURES = {"auc": "AUC", "auc_per_user": "per-user AUC", "rmse": "RMSE", "ndcg_at_10": "nDCG@10"}


@dataclass(frozen=True, eq=False)
class Material:
    """What a report tells of: the decision as decision.json has it, and what it was about.

    `dataset` is None where its folder is gone, `recommender` where the version cannot make what is asked of it.
    """

    decision: Mapping[str, Any]
    version: "Version"
    versions: Sequence["Version"]
    dataset: Dataset | None
    recommender: Recommender
    titles: Mapping[str, str]


def render(material: Material) -> str:
    """The report as HTML."""
    import jinja2

    decision, version, dataset = material.decision, material.version, material.dataset
    compared = decision["dataset"]
    measured = version.metrics_on(compared["test_digest"]) or {}
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    page = environment.from_string(Path(__file__).with_name("report.html").read_text(encoding="utf-8"))
    rows = _rows(material)
    return page.render(
        title=f"{version.name}: version {version.number} ({version.family})",
        subtitle=_sentence(version.standing or "not in Production"),
        decision=_decision(decision),
        test_rows=compared["test_rows"],
        columns=["version", "family", *_shown(material), "forward AUC", ""],
        versions=rows,
        data=_data(dataset) if dataset else [("dataset", f"{compared['digest']}, whose folder is gone")],
        version=version.number,
        calibration_error=measured.get("calibration_error"),
        coverage=measured.get("interval_coverage"),
        figures={name: _embedded(figure) for name, figure in _figures(material).items()},
        lists=_lists(material),
        origin=_origin(decision, version),
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _decision(decision: Mapping[str, Any]) -> dict[str, Any]:
    certainty, said = decision.get("certainty"), ""
    if certainty:
        found = certainty["comparison"]
        said = (
            f"Version {decision['to']} is ahead of version {certainty['other']}, {certainty['role']}, in "
            f"{found['ahead']:.0%} of the draws of users (p {found['p_value']:.2g})."
        )
    refused = [one for one in decision["candidates"] if one["problem"]]
    return {
        "reason": _sentence(decision["why"]),
        "certainty": said,
        "notes": [f"Version {one['version']} is no candidate: {one['problem']}." for one in refused],
        "made": f"{_DONE.get(decision['outcome'], 'Decided')} on {decision['when'][:10]} by {decision['who']}.",
    }


_DONE = {"promoted": "Promoted", "dry_run": "Decided as a dry run"}


def _shown(material: Material) -> list[str]:
    """The measures that any of the versions has."""
    found = [one["metrics"] for one in material.decision["candidates"]]
    return [label for name, label in _MEASURES.items() if any(name in metrics for metrics in found)]


def _rows(material: Material) -> list[dict[str, Any]]:
    by_number = {version.number: version for version in material.versions}
    rows = []
    for one in sorted(material.decision["candidates"], key=lambda one: -one["metrics"].get("auc", 0)):
        forward = ((one["forward"] or {}).get("metrics") or {}).get("forward_auc")
        cells = [_plain(str(one["version"])), _plain(one["family"])]
        cells += [
            _cell(one["metrics"], name, by_number.get(one["version"]), material)
            for name, label in _MEASURES.items()
            if label in _shown(material)
        ]
        chosen = one["version"] == material.decision["to"]
        said = "in Production" if chosen else "refused" if one["problem"] else ""
        ends = [_plain("-" if forward is None else f"{forward:.4f}"), _plain(said)]
        rows.append({"cells": [*cells, *ends], "chosen": chosen})
    return rows


def _cell(metrics: Mapping[str, float], name: str, version: "Version | None", material: Material) -> dict[str, str]:
    if name not in metrics:
        return _plain("-")
    interval = None if version is None else own_interval(version, name, material.decision["dataset"]["test_digest"])
    return {"value": f"{metrics[name]:.4f}", "interval": "{:.4f} to {:.4f}".format(*interval) if interval else ""}


def _plain(text: str) -> dict[str, str]:
    return {"value": text, "interval": ""}


def own_interval(version: "Version", name: str, test_digest: str) -> tuple[float, float] | None:
    """The 95% interval over users of a version's own measure; None where nothing was drawn of it."""
    if name == "auc":
        drawn = version.replicates_on(test_digest)
    elif name == "auc_per_user":
        drawn = version.user_replicates_on(test_digest)
    elif name == "ndcg_at_10":
        lists = version.list_replicates_on(test_digest)
        drawn = lists.ndcg if lists else None
    else:
        drawn = None
    if drawn is None or np.isnan(drawn).all():
        return None
    low, high = np.nanquantile(drawn, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return float(low), float(high)


def _data(dataset: Dataset) -> list[tuple[str, str]]:
    manifest, made = dataset.manifest, dataset.preparation
    lost = {reason.replace("_", " "): count for reason, count in manifest["dropped"].items() if count}
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in lost.items())
    low, high = dataset.scale
    cells = manifest["users"] * manifest["items"]
    split = {"hash": "each pair of user and item by its hash", "random": "at random", "time": "the newest rows last"}
    rows = [
        ("file", Path(made.ratings).name),
        ("rows read", f"{manifest['rows_read']:,}; dropped: {dropped or 'none'}"),
        ("ratings", f"{manifest['ratings']:,} of {manifest['users']:,} users on {manifest['items']:,} items"),
        ("filled", f"{manifest['ratings'] / cells:.2%} of all pairs"),
        ("split", split.get(made.split, made.split)),
        *((part, f"{dataset.size(part):,} rows") for part in PARTS),
    ]
    if not dataset.implicit:
        rows += [("scale", f"{low:g} to {high:g}"), ("a like", f"a rating of at least {dataset.like_threshold:g}")]
    return rows


def _figures(material: Material) -> "dict[str, Figure | None]":
    from recsys.evaluation import evaluator, plots

    decision, dataset = material.decision, material.dataset
    found: dict[str, Figure | None] = {"comparison": None, "ratings": None, "calibration": None}
    metric = "ndcg_at_10" if decision["policy"].get("metric") == "ndcg_at_10" else "auc"
    measured = [one for one in decision["candidates"] if metric in one["metrics"]]
    by_number = {version.number: version for version in material.versions}
    numbers = [one["version"] for one in measured]
    if measured:
        digest = decision["dataset"]["test_digest"]
        found["comparison"] = plots.comparison(
            [f"{one['version']} {one['family']}" for one in measured],
            [one["metrics"][metric] for one in measured],
            [own_interval(by_number[number], metric, digest) if number in by_number else None for number in numbers],
            numbers.index(decision["to"]) if decision["to"] in numbers else None,
            None,
            _LEVEL,
            _MEASURES[metric],
        )
    if dataset is not None and not dataset.implicit:
        found["ratings"] = plots.rating_histogram(dataset)
        evaluation = evaluator.evaluate(material.recommender, dataset, ranking=False, baselines=False)
        found["calibration"] = plots.calibration(evaluation)
    return found


def _embedded(figure: "Figure | None") -> str:
    """A figure as the address of an image that holds the image itself; empty for none."""
    if figure is None:
        return ""
    from recsys.figures import lay_out

    buffer = io.BytesIO()
    lay_out(figure, _DPI)
    figure.savefig(buffer, format="png", dpi=_DPI)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _lists(material: Material) -> list[dict[str, Any]]:
    """Lists for a user with few ratings, one in the middle and one with many; none of a version without lists."""
    recommender = material.recommender
    if recommender.lists is None:
        return []
    knowledge, counts = recommender.knowledge, np.diff(recommender.lists.rated.starts)
    order = np.argsort(counts, kind="stable")
    places = [round(share * (len(order) - 1)) for share in (0.1, 0.5, 0.95)]
    users = list(dict.fromkeys(order[places].tolist()))[:USERS]
    made = recommender.recommend(knowledge.user_ids[users], LISTED)
    return [
        {
            "user": knowledge.user_ids[user],
            "rated": int(counts[user]),
            "listed": [
                {"name": _name(item, material.titles), "why": _why(material, knowledge.user_ids[user], item)}
                for item in items
            ],
        }
        for user, items in zip(users, made.items, strict=True)
    ]


def _why(material: Material, user: str, item: str) -> str:
    found = material.recommender.explain(user, item)
    because = " · ".join(_name(other, material.titles) for other in found.items[:_REASONS])
    like = "" if material.recommender.knowledge.implicit else f"{found.like_probability:.0%} likely to be liked"
    return "; ".join(part for part in (f"because of {because}" if because else "popular", like) if part)


def _name(item: str, titles: Mapping[str, str]) -> str:
    return titles.get(item, str(item))


def _origin(decision: Mapping[str, Any], version: "Version") -> list[tuple[str, str]]:
    compared = decision["dataset"]
    commit = f"{decision['commit'][:12]}{' with uncommitted changes' if decision['dirty'] else ''}"
    return [
        ("model", f"models:/{version.name}/{version.number}"),
        ("trained by run", version.run_id),
        ("dataset", compared["digest"]),
        ("test set", compared["test_digest"]),
        ("decided by code", commit),
    ]
