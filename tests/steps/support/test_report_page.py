"""The report of a version, as one page."""

import base64
import json
import re
from dataclasses import replace

import numpy as np
import pytest

from recsys.evaluation import PROTOCOL
from recsys.models.base.family import family_module
from recsys.testing.datasets import rated
from recsys.training.trainer import train
from registry.replicates import pack
from registry.versions import Version
from steps.support.report_page import Material, own_interval, render

MEASURED = {"auc": 0.81, "auc_per_user": 0.7, "rmse": 0.9, "calibration_error": 0.02}


@pytest.fixture
def material(prepare_rows) -> Material:
    dataset = prepare_rows(rated(30, 20, 1, 5, step=1))
    recommender = train("bias", dataset, family_module("bias").Config(), seed=1).final
    digest = dataset.test_digest
    drawn = pack(0.81 + np.linspace(-0.02, 0.02, 2001), 0.81)
    tags = {
        "family": "bias",
        f"evaluation.{PROTOCOL}.{digest}": json.dumps(MEASURED),
        f"replicates.{PROTOCOL}.{digest}": f"2026-11-29T10:00 {drawn}",
    }
    version = Version(
        "shop", 1, "Production", tags, "models:/m-1", "bias.\n\nIn Production since 2026-11-29: the best."
    )
    candidate = {"version": 1, "family": "bias", "metrics": MEASURED, "forward": None, "problem": None}
    refused = {**candidate, "version": 2, "metrics": {"auc": 0.7}, "problem": "its AUC <b>is low</b>"}
    decision = {
        "outcome": "promoted",
        "to": 1,
        "why": "version 1 (bias) goes to Production",
        "when": "2026-11-29T10:00:00",
        "who": "Anna & Co",
        "commit": "0123456789abcdef",
        "dirty": False,
        "dataset": {"digest": dataset.digest, "test_digest": digest, "test_rows": len(dataset.test)},
        "policy": {"metric": "auc"},
        "certainty": {"other": 2, "role": "the next best", "comparison": {"ahead": 0.99, "p_value": 0.02}},
        "candidates": [candidate, refused],
    }
    titles = {item: f"Title of {item} <i>" for item in dataset.item_ids}
    return Material(decision, version, [version], dataset, recommender, titles)


def test_the_page_needs_nothing_beside_it_and_says_what_was_decided(material):
    page = render(material)
    assert not re.search(r"(?:src|href)=\"(?!data:)", page)
    images = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert len(images) == 3
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in images)
    for text in (
        "Version 1 (bias) goes to Production.",
        "Version 1 is ahead of version 2, the next best, in 99% of the draws of users (p 0.02).",
        "Promoted on 2026-11-29 by Anna &amp; Co.",
        "In Production since 2026-11-29: the best",
        "0.8100",
        "0.7910 to 0.8290",
        "The mean distance is\n    0.020",
    ):
        assert text in page, text
    assert "its AUC &lt;b&gt;is low&lt;/b&gt;" in page  # no markup of others'


def test_three_users_have_lists_with_reasons_and_titles(material):
    page = render(material)
    assert page.count("<h3>User ") == 3
    assert "Title of i" in page
    assert "&lt;i&gt;" in page
    assert re.search(r"because of Title of i\d+ .*; \d+% likely to be liked", page)


def test_what_is_gone_or_cannot_be_made_is_left_out(material):
    material.recommender.lists = None
    page = render(replace(material, dataset=None, versions=[]))
    assert "whose folder is gone" in page
    assert page.count("data:image/png") == 1
    assert "Lists for three users" not in page
    assert "Calibration of" not in page


def test_an_interval_is_that_of_the_replicates(material):
    digest = material.decision["dataset"]["test_digest"]
    assert own_interval(material.version, "auc", digest) == pytest.approx((0.791, 0.829), abs=1e-4)
    assert own_interval(material.version, "rmse", digest) is None
    assert own_interval(material.version, "auc", "another") is None
