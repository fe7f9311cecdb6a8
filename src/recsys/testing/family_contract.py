"""What every model family keeps to, as a suite to inherit.

class TestMine(FamilyContract):
    family = "mine"
"""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import optuna
import pytest
from pydantic import ValidationError

from recsys import models
from recsys.arrays import Array
from recsys.data.dataset import Dataset
from recsys.data.interactions import Interactions
from recsys.errors import InputError
from recsys.evaluation.evaluator import evaluate
from recsys.models.base.capabilities import capabilities
from recsys.models.base.family import family_module
from recsys.models.base.loading import load_recommender
from recsys.models.base.recommender import Predictions, Recommender
from recsys.models.base.storage import load_arrays
from recsys.settings import Settings, parse_settings, to_text
from recsys.testing.datasets import prepared, rated
from recsys.testing.lists_contract import ListsContract
from recsys.training.fit_task import FitTask
from recsys.training.trainer import shared_task, train

Pairs = tuple[Array, Array]
"""Users and items by their ids, each of shape (n,)."""
SOURCE = Path(models.__file__).resolve().parents[2]

SCALES = {
    "1 to 5": (1, 5, 1, 4.0),
    "0.5 to 5": (0.5, 5, 0.5, 3.5),
    "1 to 10": (1, 10, 1, 7.0),
    "-10 to 10, continuous": (-10, 10, 0, 3.0),
}
"""Lowest and highest rating, step, and the least rating that is a like."""

PREDICTS_ELSEWHERE = """
import json, sys
sys.path[:0] = json.loads(sys.argv[3])

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name in ("torch", "numba", "mlflow", "optuna", "matplotlib"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NotInstalled())
from pathlib import Path
import numpy as np
from recsys import models
from recsys.models.base.loading import load_recommender
models.__path__ = json.loads(sys.argv[2])
loaded = load_recommender(Path(sys.argv[1]))
users, items = (np.array(ids, object) for ids in json.load(sys.stdin))
print(json.dumps([values.tolist() for values in loaded.predict(users, items)]))
"""


def _text(*ids: str) -> Array:
    return np.array(ids, object)


def _assert_same(one: Predictions, other: Predictions) -> None:
    assert one.rating.tolist() == other.rating.tolist()
    assert one.like_probability.tolist() == other.like_probability.tolist()


class FamilyContract(ListsContract):
    """The tests that every family passes; a subclass names its family and says what may be expected of it."""

    knows_users: ClassVar[bool] = True
    """Whether its likes of one item differ between users."""
    knows_pairs: ClassVar[bool | None] = None
    """Whether it can know more of a pair than how its user rates and its item is rated; None: a little, perhaps."""

    @pytest.fixture(scope="class")
    @classmethod
    def dataset(cls, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
        """Some 600 ratings from 1 to 5 by 40 users of 30 items."""
        return prepared(tmp_path_factory.mktemp("contract"), rated(40, 30, 1, 5, step=1))

    @pytest.fixture(scope="class")
    @classmethod
    def recommender(cls, dataset: Dataset) -> Recommender:
        """What is trained on the dataset."""
        return cls.fit(dataset).final

    @pytest.fixture(scope="class")
    @classmethod
    def pairs(cls, dataset: Dataset) -> Pairs:
        """Every pair of the dataset's users and items, and of one unknown user and one unknown item."""
        users, items = _text(*dataset.user_ids, "nobody"), _text(*dataset.item_ids, "nothing")
        return np.repeat(users, len(items)), np.tile(items, len(users))

    def test_it_names_itself_and_keeps_its_config(self, recommender: Recommender) -> None:
        assert recommender.family == self.family
        assert isinstance(recommender.config, family_module(self.family).Config)

    def test_every_pair_gets_a_rating_within_the_scale_and_a_probability(
        self, recommender: Recommender, pairs: Pairs
    ) -> None:
        rating, like = recommender.predict(*pairs)
        for values in (rating, like):
            assert values.shape == pairs[0].shape
            assert values.dtype == np.float64
            assert np.isfinite(values).all()
        assert rating.min() >= 1
        assert rating.max() <= 5
        assert like.min() >= 0
        assert like.max() <= 1

    def test_predictions_differ_between_items(self, recommender: Recommender, dataset: Dataset) -> None:
        rating, like = recommender.predict(np.repeat(dataset.user_ids[:1], len(dataset.item_ids)), dataset.item_ids)
        assert len(np.unique(rating)) > 5
        assert len(np.unique(like)) > 5

    @pytest.mark.parametrize(("user", "item"), [("nobody", "i0"), ("u0", "nothing"), ("nobody", "nothing"), ("", "")])
    def test_an_unknown_user_or_item_gets_the_bias_fallback(
        self, recommender: Recommender, user: str, item: str
    ) -> None:
        knowledge = recommender.knowledge
        users, items = knowledge.user_codes(_text(user)), knowledge.item_codes(_text(item))
        bias = knowledge.biases.rating(users, items)
        rating, like = recommender.predict(_text(user), _text(item))
        assert rating.tolist() == np.clip(bias, 1, 5).tolist()
        assert like.tolist() == knowledge.calibration.probability(bias).tolist()

    def test_data_without_ratings_is_learnt_from_or_refused_with_the_families_that_can(self, tmp_path: Path) -> None:
        """Half the users take one half of the items, the others the other, but for one item each."""
        rows = [(f"u{u:02}", f"i{i:02}", 1) for u in range(40) for i in range(u % 2, 40, 2) if i // 2 != u // 2]
        dataset = prepared(tmp_path, rows)
        if not capabilities(self.family).implicit:
            with pytest.raises(InputError, match=r"it learns from ratings.* learn from that"):
                self.fit(dataset)
            return
        recommender = self.fit(dataset).final
        measured = evaluate(recommender, dataset)
        assert measured.metrics["auc"] > 0.9
        assert measured.metrics["auc_per_user"] > 0.9
        assert "rmse" not in measured.metrics
        left_out = [f"i{2 * (u // 2) + u % 2:02}" for u in range(40)]
        users = _text(*(f"u{u:02}" for u in range(40)))
        probable = recommender.predict(users, _text(*left_out)).like_probability
        other = recommender.predict(users, _text(*(left_out[1:] + left_out[:1]))).like_probability
        assert (probable[::2] > other[::2]).mean() > 0.8
        recommender.save(tmp_path / "saved")
        _assert_same(
            load_recommender(tmp_path / "saved").predict(users, _text(*left_out)),
            recommender.predict(users, _text(*left_out)),
        )

    def test_no_pair_gives_no_prediction(self, recommender: Recommender) -> None:
        rating, like = recommender.predict(_text(), _text())
        assert rating.shape == like.shape == (0,)

    def test_a_pair_s_prediction_does_not_depend_on_those_beside_it(
        self, recommender: Recommender, pairs: Pairs
    ) -> None:
        whole = recommender.predict(*pairs)
        order = np.random.default_rng(0).permutation(len(pairs[0]))
        shuffled = recommender.predict(pairs[0][order], pairs[1][order])
        alone = recommender.predict(pairs[0][7:8], pairs[1][7:8])
        for position in range(2):
            assert shuffled[position] == pytest.approx(whole[position][order], abs=1e-5)
            assert alone[position] == pytest.approx(whole[position][7:8], abs=1e-5)

    def test_predicting_changes_nothing(self, recommender: Recommender, pairs: Pairs) -> None:
        _assert_same(recommender.predict(*pairs), recommender.predict(*pairs))

    def test_the_same_seed_gives_the_same_predictions(
        self, dataset: Dataset, recommender: Recommender, pairs: Pairs
    ) -> None:
        _assert_same(self.fit(dataset).final.predict(*pairs), recommender.predict(*pairs))

    def test_trainings_that_share_a_task_learn_as_they_would_alone(self, dataset: Dataset, pairs: Pairs) -> None:
        def predicted(config: Settings, task: FitTask[Interactions] | None = None) -> Predictions:
            done = train(self.family, dataset, config, seed=42, refit=False, lists=False, task=task)
            return done.chosen.predict(*pairs)

        module, task = family_module(self.family), shared_task(self.family, dataset)
        assert task is not None
        suggested = module.suggest(optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask())
        one, other = module.Config(**self.small), suggested.model_copy(update=self.small)
        for config in (one, other, one):
            _assert_same(predicted(config, task), predicted(config))

    def test_loading_gives_what_was_saved(self, recommender: Recommender, pairs: Pairs, tmp_path: Path) -> None:
        recommender.save(tmp_path)
        loaded = load_recommender(tmp_path)
        assert type(loaded).__name__ == type(recommender).__name__
        assert loaded.config == recommender.config
        assert loaded.importances() == recommender.importances()
        _assert_same(loaded.predict(*pairs), recommender.predict(*pairs))

    def test_another_process_predicts_the_same_without_what_training_needed(
        self, recommender: Recommender, pairs: Pairs, tmp_path: Path
    ) -> None:
        recommender.save(tmp_path)
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                PREDICTS_ELSEWHERE,
                str(tmp_path),
                json.dumps(list(models.__path__)),
                json.dumps([str(SOURCE)]),
            ],
            input=json.dumps([ids.tolist() for ids in pairs]),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(done.stdout) == [values.tolist() for values in recommender.predict(*pairs)]

    def test_nothing_is_pickled(self, recommender: Recommender, tmp_path: Path) -> None:
        recommender.save(tmp_path)
        files = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        for path in tmp_path.rglob("*"):
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    files |= {f"{path.name}/{name}": archive.read(name) for name in archive.namelist()}
            if path.suffix == ".npz":
                assert load_arrays(path)
        for name, content in files.items():
            assert Path(name).suffix not in (".pkl", ".pickle", ".joblib", ".pt", ".pth"), name
            assert not content.startswith(b"\x80"), f"{name} starts as a pickle does"
            assert not (content.startswith(b"\x93NUMPY") and b"'descr': '|O'" in content[:200]), f"{name} holds objects"

    def test_a_saved_folder_can_be_moved(self, recommender: Recommender, pairs: Pairs, tmp_path: Path) -> None:
        recommender.save(tmp_path / "here")
        (tmp_path / "here").rename(tmp_path / "there")
        _assert_same(load_recommender(tmp_path / "there").predict(*pairs), recommender.predict(*pairs))

    def test_the_config_is_frozen_and_refuses_what_it_does_not_know(self) -> None:
        config_class = family_module(self.family).Config
        name, value = next(iter(config_class().model_dump().items()))
        with pytest.raises(ValidationError):
            setattr(config_class(), name, value)
        with pytest.raises(InputError) as caught:
            parse_settings(config_class, {"no_such_setting": "1"})
        known = ", ".join(config_class.model_fields)
        assert str(caught.value) == f"unknown parameter 'no_such_setting'; known are: {known}"

    def test_every_setting_has_a_default_a_meaning_and_a_text_form(self) -> None:
        config_class = family_module(self.family).Config
        assert all(field.description for field in config_class.model_fields.values())
        written = {name: to_text(value) for name, value in config_class().model_dump().items()}
        assert parse_settings(config_class, written) == config_class()

    def test_the_search_space_gives_valid_settings(self) -> None:
        module = family_module(self.family)
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        suggested = [module.suggest(study.ask()) for _ in range(30)]
        assert all(isinstance(config, module.Config) for config in suggested)
        assert len({config.model_dump_json() for config in suggested}) > 20

    def test_the_default_settings_lie_in_the_search_space(self) -> None:
        """A search begins with them, and what is searched is never worse than what is not."""
        module = family_module(self.family)
        default = module.Config()
        assert module.suggest(optuna.trial.FixedTrial(default.model_dump())) == default

    def test_importances_are_shares(self, recommender: Recommender) -> None:
        shares = recommender.importances()
        assert all(0 <= share <= 1 for share in shares.values())
        assert not shares or sum(shares.values()) == pytest.approx(1)

    def test_progress_is_numbered_and_may_stop_the_fit(self, dataset: Dataset) -> None:
        class StoppedError(Exception):
            pass

        heard: list[tuple[int, dict[str, float]]] = []
        self.fit(dataset, report=lambda epoch, metrics: heard.append((epoch, metrics)))
        assert [epoch for epoch, _ in heard] == sorted({epoch for epoch, _ in heard})
        assert all(np.isfinite(list(metrics.values())).all() for _, metrics in heard)

        def stop(epoch: int, metrics: dict[str, float]) -> None:
            raise StoppedError

        if heard:
            assert all("validation_rmse" in metrics for _, metrics in heard)
            with pytest.raises(StoppedError):
                self.fit(dataset, report=stop)

    @pytest.mark.parametrize("scale", SCALES.values(), ids=SCALES)
    def test_it_ranks_and_rates_additive_effects_on_any_scale(
        self, scale: tuple[float, float, float, float], tmp_path: Path
    ) -> None:
        low, high, step, like_threshold = scale
        dataset = prepared(tmp_path, rated(60, 40, low, high, step=step), like_threshold=like_threshold)
        measured = evaluate(self.fit(dataset).final, dataset)
        lowest, highest = dataset.scale
        assert measured.predictions.rating.min() >= lowest
        assert measured.predictions.rating.max() <= highest
        assert measured.metrics["rmse"] < 0.8 * measured.rows.ratings.std()
        if self.knows_users:
            assert measured.metrics["auc"] > 0.9
        assert measured.metrics["auc_per_user"] > 0.9
        # The probability means what it says: as many likes as it adds up to.
        assert measured.predictions.like_probability.mean() == pytest.approx(measured.liked.mean(), abs=0.08)

    def test_a_checkerboard_is_learnt_by_those_who_know_pairs_and_not_guessed_by_others(self, tmp_path: Path) -> None:
        """Half the users like one half of the items, the others the other: every average is the same."""
        rows = [(f"u{u}", f"i{i}", 5 if u % 2 == i % 2 else 1) for u in range(40) for i in range(40)]
        auc = evaluate(self.fit(prepared(tmp_path, rows)).final, prepared(tmp_path, rows), ranking=False).metrics["auc"]
        if self.knows_pairs is not None:
            assert auc > 0.95 if self.knows_pairs else auc < 0.6

    def test_a_user_and_an_item_with_one_rating_are_no_problem(self, tmp_path: Path) -> None:
        rows = [*rated(20, 20, 1, 5, step=1), ("hermit", "i1", 5), ("u1", "rarity", 1), ("stranger", "oddity", 3)]
        dataset = prepared(tmp_path, rows)
        rating, like = self.fit(dataset).final.predict(
            _text("hermit", "u1", "stranger"), _text("i2", "rarity", "oddity")
        )
        assert np.isfinite(rating).all()
        assert np.isfinite(like).all()

    def test_a_handful_of_ratings_is_enough(self, tmp_path: Path) -> None:
        rows = [(f"u{u}", f"i{i}", 1 + (u + i) % 5) for u in range(4) for i in range(4)]
        rating, like = self.fit(prepared(tmp_path, rows)).final.predict(_text("u0", "u3"), _text("i0", "i3"))
        assert np.isfinite(rating).all()
        assert np.isfinite(like).all()
