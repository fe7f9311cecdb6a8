"""A random forest on user and item features that predicts the level of a rating (Breiman 2001).

From the probabilities of the levels come both answers: the expected rating is their mean, the probability of a
like the sum over the liked levels. scikit-learn is imported where it is used: a wrong parameter is told before.
"""

import io
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import numpy as np
from pydantic import Field

from recsys.arrays import Array, Codes, Floats
from recsys.data.features import FEATURES, Features, Statistics, learn_features, out_of_fold_table
from recsys.data.interactions import Interactions
from recsys.errors import InputError
from recsys.models.base.capabilities import Capabilities
from recsys.models.base.family import FitOptions
from recsys.models.base.knowledge import Knowledge
from recsys.models.base.recommender import Predictions, Recommender
from recsys.models.base.storage import load_arrays, save_arrays
from recsys.settings import OptionalInt, Settings

if TYPE_CHECKING:
    from sklearn.ensemble import RandomForestClassifier

# It chooses nothing by the validation rows, so all training rows may measure its settings.
CAPABILITIES = Capabilities(cross_validation_folds=5, stored_features=True)
_MOST_LEVELS = 20  # a scale with more distinct ratings is cut into _BINS levels of equally many ratings
_BINS = 10
_VALUES = 128  # distinct values of a feature among the rows learnt from: splitting a node sorts them and tries them all
_THREADS = 4
_SHARE_ROWS = 1 << 12  # rows scored at a time by a thread, which bounds memory: rows x levels per tree
_COLUMNS = [FEATURES.index(name) for name in FEATURES if "unique" not in name]
"""Counts and distinct partners are equal in clean data; a tree needs one of them."""


class Config(Settings):
    """Settings of the random forest; names and meaning are scikit-learn's."""

    n_estimators: int = Field(100, ge=1, le=10_000, description="number of trees")
    max_depth: OptionalInt = Field(10, ge=1, description="greatest depth of a tree, or none")
    min_samples_split: int = Field(2, ge=2, description="rows a node needs to be split")
    min_samples_leaf: int = Field(10, ge=1, description="rows a leaf needs")
    max_features: Literal["sqrt", "log2", "none"] = Field("sqrt", description="features tried at a split; none: all")
    bootstrap: bool = Field(True, description="whether every tree sees its own sample of the rows")
    max_samples: float = Field(0.5, gt=0, le=1, description="size of such a sample, as a share of the rows")


class ForestRecommender(Recommender):
    """A forest, the features it reads, and what its levels mean.

    `level_ratings` and `level_liked`, of shape (levels,), give the mean rating of a level and whether it is a like.
    """

    family = "random_forest"

    def __init__(
        self,
        knowledge: Knowledge,
        config: Config,
        forest: "RandomForestClassifier",
        features: Features,
        level_ratings: Floats,
        level_liked: Floats,
        stored: dict[str, str] | None = None,
    ) -> None:
        """Take what was learnt; `stored` says of which dataset, and of when, features from a feature store were."""
        super().__init__(knowledge, config)
        self.stored = stored
        self.forest = forest
        self.features = features
        self.level_ratings = level_ratings
        self.level_liked = level_liked

    def _score_known(self, users: Codes, items: Codes) -> Predictions:
        # The forest's own threads add up their trees in the order they finish, which changes the last digits from
        # call to call: each thread here takes rows instead, and its trees in order.
        starts = range(0, len(users), _SHARE_ROWS)
        with ThreadPoolExecutor(_THREADS) as pool:
            shares = list(
                pool.map(
                    lambda s: self._level_probabilities(users[s:][:_SHARE_ROWS], items[s:][:_SHARE_ROWS]),
                    starts,
                )
            )
        levels = np.concatenate(shares) if shares else np.empty((0, len(self.level_ratings)))
        return Predictions(levels @ self.level_ratings, np.clip(levels @ self.level_liked, 0, 1))

    def _level_probabilities(self, users: Codes, items: Codes) -> Array:
        table = self.features.table(users, items)[:, _COLUMNS].astype(np.float32)
        return np.asarray(self.forest.predict_proba(table))

    def importances(self) -> dict[str, float]:
        """Mean decrease in impurity of each feature; together 1."""
        names = [FEATURES[column] for column in _COLUMNS]
        return dict(zip(names, self.forest.feature_importances_.tolist(), strict=True))

    def _save_weights(self, folder: Path) -> dict[str, Any]:
        _save_forest(self.forest, folder / "forest.skops")
        sides = {"user": self.features.user, "item": self.features.item}
        statistics = {
            f"{side}_{name}": getattr(values, name)
            for side, values in sides.items()
            for name in ("average", "std", "count")
        }
        save_arrays(
            folder / "features.npz",
            level_ratings=self.level_ratings,
            level_liked=self.level_liked,
            **statistics,
        )
        return {} if self.stored is None else {"stored_features": self.stored}


def fit(
    knowledge: Knowledge,
    rows: Interactions,
    config: Config,
    options: FitOptions,
) -> ForestRecommender:
    """Grow the forest. Nothing is chosen on validation rows: probabilities come from the leaves."""
    from sklearn.ensemble import RandomForestClassifier

    table, features = _features(knowledge, rows, options)
    levels, level_ratings, level_liked = _levels(rows.ratings, knowledge.like_threshold)
    settings = config.model_dump() | {"max_features": None if config.max_features == "none" else config.max_features}
    if not config.bootstrap:
        settings["max_samples"] = None  # scikit-learn refuses another
    forest = RandomForestClassifier(**settings, random_state=options.seed, n_jobs=-1)
    coarse = np.stack([_coarsen(table[:, column]) for column in _COLUMNS], axis=1)
    forest.fit(coarse.astype(np.float32), levels)
    forest.set_params(n_jobs=1)
    origin = options.stored and options.stored.origin
    stored = {"dataset": origin.dataset, "prepared": origin.prepared} if origin else None
    return ForestRecommender(knowledge, config, forest, features, level_ratings, level_liked, stored)


def _coarsen(values: Floats) -> Floats:
    """A feature, shape (n,), in at most _VALUES distinct values, each the mean of about equally many neighbours.

    Trees of such values take much less time to grow, and predict as well: what they answer for are exact values.
    """
    borders = np.unique(np.quantile(values, np.linspace(0, 1, _VALUES + 1)[1:-1]))
    groups = np.searchsorted(borders, values, side="right")
    rows = np.bincount(groups)
    means = np.bincount(groups, weights=values) / np.maximum(rows, 1)
    coarse: Floats = means[groups]
    return coarse


def _features(knowledge: Knowledge, rows: Interactions, options: FitOptions) -> tuple[Floats, Features]:
    """The features of the rows to learn from, shape (n, 8), and those that answer afterwards."""
    sizes = len(knowledge.user_ids), len(knowledge.item_ids)
    if options.stored is None:
        table = out_of_fold_table(rows.users, rows.items, rows.ratings, *sizes, seed=options.seed)
        return table, learn_features(rows.users, rows.items, rows.ratings, *sizes)
    if rows.timestamps is None:
        raise InputError("features from a feature store are joined by the moments of the ratings, and there are none")
    pairs = knowledge.user_ids[rows.users], knowledge.item_ids[rows.items]
    return options.stored.table(*pairs, rows.timestamps), options.stored.latest(knowledge.user_ids, knowledge.item_ids)


def suggest(trial: Any) -> Config:
    """The search space."""
    return Config(
        n_estimators=trial.suggest_int("n_estimators", 50, 500),
        max_depth=trial.suggest_int("max_depth", 2, 32, log=True),
        min_samples_split=trial.suggest_int("min_samples_split", 2, 20),
        min_samples_leaf=trial.suggest_int("min_samples_leaf", 1, 50, log=True),
        max_features=trial.suggest_categorical("max_features", ["sqrt", "log2", "none"]),
        bootstrap=trial.suggest_categorical("bootstrap", [True, False]),
    )


def load(folder: Path, knowledge: Knowledge, description: dict[str, Any]) -> ForestRecommender:
    """Read the forest back; raises InputError where its trees point outside themselves."""
    import skops.io

    arrays = load_arrays(folder / "features.npz")
    features = Features(
        *(Statistics(*(arrays[f"{side}_{name}"] for name in ("average", "std", "count"))) for side in ("user", "item"))
    )
    # skops trusts no tree, since scikit-learn follows its node numbers unchecked: they are checked below.
    forest = skops.io.load(folder / "forest.skops", trusted=["sklearn.tree._tree.Tree"])
    _check_trees(forest, folder / "forest.skops")
    config = Config(**{"max_samples": 1.0} | description["config"])  # versions before took samples of all rows
    levels = arrays["level_ratings"], arrays["level_liked"]
    return ForestRecommender(
        knowledge, config, forest, features, *levels, description["weights"].get("stored_features")
    )


def _save_forest(forest: "RandomForestClassifier", path: Path) -> None:
    """Write a forest in the format of skops; equal forests give equal bytes.

    What skops writes differs each time: it names arrays and objects by their addresses in memory and dates the members
    of the archive. Here they are numbered in the order of the schema, and without a date. The nodes of a tree, a
    structured array, have unused bytes between their fields, which hold anything: they become zeros.
    """
    import skops.io

    buffer = io.BytesIO()
    skops.io.dump(forest, buffer)
    numbers: dict[str, str] = {}

    def renumber(match: re.Match[str]) -> str:
        return match[1] + numbers.setdefault(match[2], str(len(numbers)))

    with ZipFile(buffer) as written, ZipFile(path, "w") as archive:
        schema = re.sub(r'("__id__": |"file": ")(\d+)', renumber, written.read("schema.json").decode())
        members = {numbers[name.removesuffix(".npy")]: name for name in written.namelist() if name.endswith(".npy")}
        for number in sorted(members, key=int):
            with written.open(members[number]) as file:
                stored: Array = np.lib.format.read_array(file, allow_pickle=False)
            array = np.zeros(stored.shape, stored.dtype)  # zeros_like sets the fields alone
            for field in stored.dtype.names or [...]:
                array[field] = stored[field]
            if "missing_go_to_left" in (stored.dtype.names or ()):
                array["missing_go_to_left"][stored["left_child"] < 0] = 0  # scikit-learn leaves it unset in leaves
            # Not by np.save, which may copy field by field into a buffer and write what the buffer held between fields.
            content = io.BytesIO()
            np.lib.format.write_array_header_1_0(content, np.lib.format.header_data_from_array_1_0(array))
            content.write(array.tobytes())
            archive.writestr(ZipInfo(f"{number}.npy"), content.getvalue(), ZIP_DEFLATED, 3)
        archive.writestr(ZipInfo("schema.json"), schema, ZIP_DEFLATED, 3)


def _check_trees(forest: "RandomForestClassifier", path: Path) -> None:
    for number, estimator in enumerate(forest.estimators_):
        tree = estimator.tree_
        inner = tree.children_left >= 0
        nodes = np.arange(tree.node_count)
        sound = (
            tree.n_features == len(_COLUMNS)
            and ((tree.feature[inner] >= 0) & (tree.feature[inner] < tree.n_features)).all()
            # A child comes after its parent: that bounds it and rules out circles.
            and (tree.children_left[inner] > nodes[inner]).all()
            and (tree.children_right[inner] > nodes[inner]).all()
            and max(tree.children_left.max(), tree.children_right.max()) < tree.node_count
        )
        if not sound:
            raise InputError(f"{path}: tree {number} is damaged; train the version again")


def _levels(ratings: Floats, like_threshold: float) -> tuple[Codes, Floats, Floats]:
    """The level of every rating, shape (n,), and of every level its mean rating and whether it is liked (1 or 0).

    The threshold is always a border between two levels.
    """
    values = np.unique(ratings)
    if len(values) <= _MOST_LEVELS:
        borders = values[1:]
    else:
        quantiles = np.quantile(ratings, np.linspace(0, 1, _BINS + 1)[1:-1])
        borders = np.unique(np.append(quantiles, like_threshold))
    levels = np.searchsorted(borders, ratings, side="right")
    levels = np.unique(levels, return_inverse=True)[1]  # an empty level would shift those behind it
    counts = np.bincount(levels)
    liked = np.bincount(levels, weights=ratings >= like_threshold) / counts
    return levels.astype(np.int32), np.bincount(levels, weights=ratings) / counts, liked
