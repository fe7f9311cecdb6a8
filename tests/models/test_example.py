"""The worked example of docs/adding-a-family.md, taken from the page, is a family like any other."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from recsys import models
from recsys.data.builder import prepare
from recsys.data.preparation import Preparation
from recsys.models.base.capabilities import family_names
from recsys.models.base.family import family_module
from recsys.models.base.loading import load_recommender
from recsys.testing.family_contract import FamilyContract
from recsys.training.trainer import train

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adding-a-family.md"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    folder = tmp_path / "families"
    folder.mkdir()
    (folder / "item_mean.py").write_text(code[1], encoding="utf-8")
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(folder)])
    return "item_mean"


def test_the_example_is_found_trained_saved_and_loaded(example: str, tmp_path: Path) -> None:
    assert example in family_names()
    rows = [f"u{user},i{item},{1 + (item + user) % 5}" for user in range(20) for item in range(15)]
    source = tmp_path / "ratings.csv"
    source.write_text("user_id,item_id,rating\n" + "\n".join(rows))
    dataset = prepare(source, Preparation(), tmp_path / "prepared")

    recommender = train(example, dataset, family_module(example).Config(), seed=1).final

    recommender.save(tmp_path / "saved")
    loaded = load_recommender(tmp_path / "saved")
    known = dataset.user_ids[:5], dataset.item_ids[:5]
    assert (recommender.predict(*known).rating == loaded.predict(*known).rating).all()
    learnt = recommender.knowledge
    item_ratings = dataset.train.joined(dataset.validation)
    first = item_ratings.ratings[dataset.item_ids[item_ratings.items] == learnt.item_ids[0]]
    expected = (first.sum() + 5 * item_ratings.ratings.mean()) / (len(first) + 5)
    assert recommender.predict(learnt.user_ids[:1], learnt.item_ids[:1]).rating[0] == pytest.approx(expected)


@pytest.mark.process
def test_the_contract_is_inherited_outside_the_repository_as_the_page_shows(tmp_path: Path) -> None:
    family, suite = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "families").mkdir()
    (tmp_path / "families" / "item_mean.py").write_text(family, encoding="utf-8")
    (tmp_path / "test_item_mean.py").write_text(suite, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--strict-markers", "-W", "error::pytest.PytestWarning"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(PAGE.parents[1] / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    suites = [getattr(FamilyContract, name) for name in dir(FamilyContract) if name.startswith("test_")]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) >= len(suites)
    assert "skipped" not in done.stdout
