"""A random forest on user and item features that predicts the level of a rating (Breiman 2001).

From the probabilities of the levels come both answers: the expected rating is their mean, the probability of a
like the sum over the liked levels. scikit-learn is imported where it is used: a wrong parameter is told before.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

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
    from sklearn.tree._tree import Tree

# It chooses nothing by the validation rows, so all training rows may measure its settings.
CAPABILITIES = Capabilities(cross_validation_folds=5, stored_features=True)
_MOST_LEVELS = 20  # a scale with more distinct ratings is cut into _BINS levels of equally many ratings
_BINS = 10
_VALUES = 128  # distinct values of a feature among the rows learnt from: splitting a node sorts them and tries them all
_THREADS = 4
_SHARE_ROWS = 1 << 12  # rows scored at a time by a thread, which bounds memory: rows x levels per tree
_FOREST, _FOREST_BEFORE = "forest.npz", "forest.skops"  # what versions before 2026-12 wrote
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
    """The trees of a forest, the features they read, and what their levels mean.

    `level_ratings` and `level_liked`, of shape (levels,), give the mean rating of a level and whether it is a like;
    `feature_importances`, of shape (features,), what each feature contributes to the trees.
    """

    family = "random_forest"

    def __init__(
        self,
        knowledge: Knowledge,
        config: Config,
        trees: "Sequence[Tree]",
        feature_importances: Floats,
        features: Features,
        level_ratings: Floats,
        level_liked: Floats,
        stored: dict[str, str] | None = None,
    ) -> None:
        """Take what was learnt; `stored` says of which dataset, and of when, features from a feature store were."""
        super().__init__(knowledge, config)
        self.stored = stored
        self.trees = trees
        self.feature_importances = feature_importances
        self.features = features
        self.level_ratings = level_ratings
        self.level_liked = level_liked

    def _score_known(self, users: Codes, items: Codes) -> Predictions:
        # A thread takes rows, and adds up the trees in order. scikit-learn's threads take trees, and add them up in the
        # order they finish, which changes the last digits from call to call.
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
        total = np.zeros((len(table), len(self.level_ratings)))
        for tree in self.trees:
            total += tree.predict(table)
        return total / len(self.trees)

    def importances(self) -> dict[str, float]:
        """Mean decrease in impurity of each feature; together 1."""
        names = [FEATURES[column] for column in _COLUMNS]
        return dict(zip(names, self.feature_importances.tolist(), strict=True))

    def _save_weights(self, folder: Path) -> dict[str, Any]:
        save_arrays(folder / _FOREST, importances=self.feature_importances, **_pack_trees(self.trees))
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
    table, features = _features(knowledge, rows, options)
    levels, level_ratings, level_liked = _levels(rows.ratings, knowledge.like_threshold)
    forest = _grow(np.stack([_coarsen(table[:, column]) for column in _COLUMNS], axis=1), levels, config, options.seed)
    origin = options.stored and options.stored.origin
    stored = {"dataset": origin.dataset, "prepared": origin.prepared} if origin else None
    trees, importances = _trees_of(forest)
    return ForestRecommender(knowledge, config, trees, importances, features, level_ratings, level_liked, stored)


def _grow(table: Floats, levels: Codes, config: Config, seed: int) -> "RandomForestClassifier":
    from sklearn.ensemble import RandomForestClassifier

    settings = config.model_dump() | {"max_features": None if config.max_features == "none" else config.max_features}
    # A number of rows: of a share scikit-learn warns where that makes few. Without bootstrap it refuses both.
    settings["max_samples"] = max(1, round(config.max_samples * len(table))) if config.bootstrap else None
    forest = RandomForestClassifier(**settings, random_state=seed, n_jobs=-1)
    return forest.fit(table.astype(np.float32), levels)


def _trees_of(forest: "RandomForestClassifier") -> tuple[list["Tree"], Floats]:
    """What answers need of a forest: its trees, and the importance of each feature."""
    return [estimator.tree_ for estimator in forest.estimators_], forest.feature_importances_


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
    arrays = load_arrays(folder / "features.npz")
    features = Features(
        *(Statistics(*(arrays[f"{side}_{name}"] for name in ("average", "std", "count"))) for side in ("user", "item"))
    )
    if (folder / _FOREST).exists():
        packed = load_arrays(folder / _FOREST)
        forest = _unpack_trees(packed, folder / _FOREST), packed["importances"]
    else:
        forest = _load_before(folder / _FOREST_BEFORE)
    config = Config(**{"max_samples": 1.0} | description["config"])  # versions before took samples of all rows
    levels = arrays["level_ratings"], arrays["level_liked"]
    stored = description["weights"].get("stored_features")
    return ForestRecommender(knowledge, config, *forest, features, *levels, stored)


def _load_before(path: Path) -> tuple[list["Tree"], Floats]:
    import skops.io

    # skops trusts no tree, since scikit-learn follows its node numbers unchecked: they are checked here.
    trees, importances = _trees_of(skops.io.load(path, trusted=["sklearn.tree._tree.Tree"]))
    _check_trees(trees, path)
    return trees, importances


def _pack_trees(trees: "Sequence[Tree]") -> dict[str, Array]:
    """What trees predict by, as arrays over the nodes or leaves of all of them, and the size and depth of each."""
    nodes = np.concatenate([tree.__getstate__()["nodes"] for tree in trees])
    return {
        "sizes": np.array([tree.node_count for tree in trees]),
        "depths": np.array([tree.max_depth for tree in trees]),
        "left": nodes["left_child"].astype(np.int32),
        "right": nodes["right_child"].astype(np.int32),
        "feature": nodes["feature"].astype(np.int8),
        "threshold": nodes["threshold"],
        # (leaves, levels) what share of a leaf's rows each level has
        "levels": np.concatenate([tree.value[tree.children_left < 0, 0, :] for tree in trees]),
    }


def _unpack_trees(arrays: dict[str, Array], path: Path) -> list["Tree"]:
    """The trees again, without what growing needed; raises InputError where they point outside themselves."""
    from sklearn.tree._tree import NODE_DTYPE, Tree

    nodes = np.zeros(len(arrays["left"]), NODE_DTYPE)
    names = {"left": "left_child", "right": "right_child", "feature": "feature", "threshold": "threshold"}
    for name, own in names.items():
        nodes[own] = arrays[name]
    levels = np.zeros((len(nodes), 1, arrays["levels"].shape[1]))
    levels[arrays["left"] < 0, 0] = arrays["levels"]
    trees: list[Tree] = []
    start = 0
    for size, depth in zip(arrays["sizes"].tolist(), arrays["depths"].tolist(), strict=True):
        part = slice(start, start + size)
        tree = Tree(len(_COLUMNS), np.array([levels.shape[2]], np.intp), 1)
        state = {"max_depth": depth, "nodes": nodes[part].copy(), "values": levels[part].copy()}
        tree.__setstate__(state | {"node_count": len(state["nodes"])})
        trees.append(tree)
        start += size
    _check_trees(trees, path)
    return trees


def _check_trees(trees: "Sequence[Tree]", path: Path) -> None:
    for number, tree in enumerate(trees):
        inner = tree.children_left >= 0
        nodes = np.arange(tree.node_count)
        sound = (
            tree.node_count > 0
            and tree.n_features == len(_COLUMNS)
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
