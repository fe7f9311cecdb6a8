"""What the lists of every model family keep to; `FamilyContract` inherits it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from recsys.arrays import Ids
from recsys.data.dataset import Dataset
from recsys.models.base.family import Report, family_module
from recsys.models.base.lists import History
from recsys.models.base.loading import load_recommender
from recsys.models.base.recommender import Recommender
from recsys.testing.datasets import Row, prepared
from recsys.training.trainer import TrainingResult, train

USERS, ITEMS = 24, 16


def checkerboard() -> Iterator[Row]:
    """Even users take even items, odd users odd ones; each leaves out one of their own, and their ratings vary."""
    for user in range(USERS):
        for item in range(user % 2, ITEMS, 2):
            if item // 2 != user // 2 % (ITEMS // 2):
                yield f"u{user:02}", f"i{item:02}", 1 + (user + item // 2) % 5


def left_out(user: str) -> str:
    """The item of their own that a user of the checkerboard leaves out."""
    number = int(user[1:])
    return f"i{number % 2 + 2 * (number // 2 % (ITEMS // 2)):02}"


def _ids(*names: str) -> Ids:
    return np.array(names, object)


class ListsContract:
    """The tests of lists; a subclass names its family."""

    family: ClassVar[str]
    """Its name: a module or a folder in recsys/models, or in a folder appended to `recsys.models.__path__`."""
    small: ClassVar[dict[str, Any]] = {}
    """Settings for datasets of a few hundred ratings, where the defaults are for larger ones."""

    @classmethod
    def fit(cls, dataset: Dataset, seed: int = 42, report: Report | None = None) -> TrainingResult:
        """Train with the settings for small datasets."""
        config = family_module(cls.family).Config(**cls.small)
        return train(cls.family, dataset, config, seed=seed, report=report)

    @pytest.fixture(scope="class")
    @classmethod
    def lister(cls, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
        """What is trained on the checkerboard."""
        folder = tmp_path_factory.mktemp("checkerboard")
        return cls.fit(prepared(folder, checkerboard(), test_size=0.05, validation_size=0.05), seed=1).final

    def test_what_a_user_left_out_of_a_checkerboard_comes_first(self, lister: Recommender) -> None:
        """Before it come only those of the user's own that the split withheld."""
        every = lister.knowledge.user_ids
        found = lister.recommend(every, ITEMS)
        assert set(found.policy) == {"personal"}
        assert lister.lists
        for code, (user, items) in enumerate(zip(every, found.items, strict=True)):
            withheld = items[: ITEMS // 2 - len(lister.lists.rated.of(code)[0])]
            assert left_out(user) in withheld
            assert {int(item[1:]) % 2 for item in withheld} == {int(user[1:]) % 2}

    def test_a_history_alone_leads_to_the_item_that_it_lacks(self, lister: Recommender) -> None:
        history = History(_ids(*(f"i{item:02}" for item in range(0, ITEMS - 2, 2))))
        found = lister.recommend(_ids("new", "other"), 3, history=[history, None])
        assert found.policy == ["history", "popular"]
        assert found.items[0][0] == f"i{ITEMS - 2:02}"
        assert [len(items) for items in found.items] == [3, 3]

    def test_a_list_is_as_long_as_asked_where_so_many_items_exist(self, lister: Recommender) -> None:
        kept = lister.knowledge.item_ids[:6]
        for n in (1, 4, 6, 20):
            found = lister.recommend(_ids("u00", "nobody"), n, candidates=kept, exclude=kept[:1], exclude_seen=False)
            assert [len(items) for items in found.items] == [min(n, 5)] * 2
            assert all(set(items) <= set(kept[1:]) for items in found.items)
            assert all(bool(note) == (n > 5) for note in found.notes)
            assert all(np.isfinite(scores).all() and (np.diff(scores) <= 0).all() for scores in found.scores)
            assert all(((like >= 0) & (like <= 1)).all() for like in found.probabilities)

    def test_what_was_seen_is_left_out_unless_asked_for(self, lister: Recommender) -> None:
        assert lister.lists
        seen, user = lister.knowledge.item_ids[lister.lists.rated.of(0)[0]], lister.knowledge.user_ids[:1]
        assert not set(lister.recommend(user, ITEMS).items[0]) & set(seen)
        assert set(seen) <= set(lister.recommend(user, ITEMS, exclude_seen=False).items[0])

    def test_a_list_does_not_depend_on_the_users_beside_it(self, lister: Recommender) -> None:
        every = lister.knowledge.user_ids
        together = lister.recommend(every, 4)
        alone = [lister.recommend(every[at : at + 1], 4) for at in range(len(every))]
        assert [items.tolist() for items in together.items] == [one.items[0].tolist() for one in alone]
        for scores, one in zip(together.scores, alone, strict=True):
            assert scores == pytest.approx(one.scores[0], rel=1e-5)

    def test_saving_and_loading_changes_no_list(self, lister: Recommender, tmp_path: Path) -> None:
        lister.save(tmp_path)
        loaded, users = load_recommender(tmp_path), lister.knowledge.user_ids
        options: list[dict[str, Any]] = [{}, {"diversity": 0.5}, {"candidates": lister.knowledge.item_ids[:5]}]
        for given in options:
            one, other = (model.recommend(users, 4, **given) for model in (lister, loaded))
            assert [items.tolist() for items in one.items] == [items.tolist() for items in other.items]
            assert [scores.tolist() for scores in one.scores] == [scores.tolist() for scores in other.scores]

    def test_an_explanation_names_items_of_the_history_and_its_shares_add_up(self, lister: Recommender) -> None:
        user = lister.knowledge.user_ids[0]
        why = lister.explain(user, left_out(user))
        assert lister.lists
        assert set(why.items) <= set(lister.knowledge.item_ids[lister.lists.rated.of(0)[0]])
        assert why.shares.sum() == pytest.approx(1)
        assert (np.diff(why.shares) <= 0).all()
        assert 1 <= why.rating <= 5
        assert 0 <= why.like_probability <= 1

    def test_similar_items_are_of_the_same_colour(self, lister: Recommender) -> None:
        found = lister.similar_items(_ids("i00", "i03"), 4)
        assert [len(one.items) for one in found] == [4, 4]
        assert {int(item[1:]) % 2 for item in found[0].items} == {0}
        assert {int(item[1:]) % 2 for item in found[1].items} == {1}
