"""Two ONNX graphs of a version: scores of pairs, and the list of a user. Users and items are codes, -1 is unknown.

Built node by node, so that neither PyTorch nor a converter takes part. ids.json beside them has the ids by code.
"""

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from recsys.arrays import Array
from recsys.errors import InputError
from recsys.models.base.factors import ScoringDraws
from recsys.models.base.item_to_item import MOST_HALVINGS
from recsys.models.base.ranking import POOL
from recsys.models.base.recommender import Recommender

OPSET = 18
_IR_VERSION = 10
_MOST_BYTES = 2 * 10**9  # of one message of protobuf


class _Graph:
    """Nodes in the order in which they were asked for; the value of each is named by a number."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def constant(self, value: Array, name: str = "") -> str:
        """An array that the graph holds."""
        name = name or f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def number(self, value: float) -> str:
        return self.constant(np.array(value, np.float32))

    def double(self, value: float) -> str:
        return self.constant(np.array(value, np.float64))

    def whole(self, *values: int) -> str:
        return self.constant(np.array(values, np.int64))

    def __call__(self, operator: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """A node; the name of its value, or of its values."""
        names = [f"v{len(self.nodes)}_{at}" for at in range(outputs)]
        self.nodes.append(helper.make_node(operator, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def doubled(self, value: str) -> str:
        return str(self("Cast", value, to=TensorProto.DOUBLE))

    def single(self, value: str) -> str:
        return str(self("Cast", value, to=TensorProto.FLOAT))

    def named(self, value: str, name: str) -> None:
        """Give a value the name of an output."""
        self.nodes.append(helper.make_node("Identity", [value], [name]))

    def model(self, inputs: dict[str, tuple[int, list[Any]]], outputs: dict[str, tuple[int, list[Any]]]) -> Any:
        """The model that can be saved; raises InputError if it is too large for one file."""
        size = sum(len(tensor.raw_data) for tensor in self.constants)
        if size > _MOST_BYTES:
            raise InputError(
                f"its tables are {size / 1e9:.1f} GB, and one ONNX file holds {_MOST_BYTES / 1e9:g} GB; export a "
                "version with fewer draws (samples), factors or users"
            )
        graph = helper.make_graph(
            self.nodes,
            "recsys",
            [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
            [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
            self.constants,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION)
        onnx.checker.check_model(made, full_check=True)
        return made


def scores(recommender: Recommender) -> Any:
    """`user`, `item` (n,) int64 in; `rating`, `like_probability` (n,) float32 out, as `Recommender.score` answers.

    Raises:
        InputError: for a family whose answers are no products of tables.
    """
    graph = _Graph()
    rating, like = _Scorer(graph, recommender).scores("user", "item")
    graph.named(graph.single(rating), "rating")
    graph.named(graph.single(like), "like_probability")
    pair = (TensorProto.INT64, ["n"])
    answer = (TensorProto.FLOAT, ["n"])
    return graph.model({"user": pair, "item": pair}, {"rating": answer, "like_probability": answer})


class _Scorer:
    """The tables of a recommender in a graph, with a last row for what is unknown, which code -1 leads to."""

    def __init__(self, graph: _Graph, recommender: Recommender) -> None:
        self.graph = graph
        draws = recommender.scoring_draws()
        if draws is None:
            raise InputError(
                f"family {recommender.family!r}: its answers are no products of tables, so that it cannot be exported; "
                "export a version of another family"
            )
        knowledge = recommender.knowledge
        self.draws: ScoringDraws = draws
        self.scale = knowledge.scale
        self.calibration = knowledge.calibration
        self.mean = knowledge.biases.mean
        self._tables = {
            "user_table": draws.users,
            "item_table": draws.items,
            "user_variance": draws.user_variance,
            "user_bias": knowledge.biases.user,
            "item_bias": knowledge.biases.item,
        }
        for name, table in self._tables.items():
            last = np.zeros((1, *table.shape[1:]), np.float32) + (name == "user_variance")
            graph.constant(np.concatenate((table.astype(np.float32), last)), name)

    def scores(self, users: str, items: str) -> tuple[str, str]:
        """The values of rating and probability of a like, float64; one user or as many as items."""
        g, draws = self.graph, self.draws
        product = g("Mul", g("Gather", "user_table", users), g("Gather", "item_table", items))  # (n, s, r)
        by_draw = g.doubled(g("ReduceSum", product, g.whole(2), keepdims=0))  # (n, s)
        mean = g("ReduceMean", by_draw, g.whole(1), keepdims=1)
        off = g("Sub", by_draw, mean)
        between = g("ReduceMean", g("Mul", off, off), g.whole(1), keepdims=0)
        rating = g("Add", g("Mul", g("Squeeze", mean, g.whole(1)), g.double(draws.scale)), g.double(draws.constant))
        variance = g("Add", g("Mul", between, g.double(draws.scale**2)), g.doubled(g("Gather", "user_variance", users)))
        distance = g("Mul", g("Sub", rating, g.double(draws.threshold)), g.double(draws.slope))
        like = self._link(g("Div", distance, g("Sqrt", variance)))
        biases = g.doubled(g("Add", g("Gather", "user_bias", users), g("Gather", "item_bias", items)))
        fallback = g("Add", biases, g.double(self.mean))
        at = g("Add", g("Mul", fallback, g.double(self.calibration.slope)), g.double(self.calibration.intercept))
        known = g("And", *(g("Not", g("Less", codes, g.whole(0))) for codes in (users, items)))
        rating, like = g("Where", known, rating, fallback), g("Where", known, like, g("Sigmoid", at))
        return g("Clip", rating, *(g.double(bound) for bound in self.scale)), like

    def _link(self, x: str) -> str:
        """In float64, in which a probability near 0 keeps its digits: lists take its root."""
        g = self.graph
        if self.draws.link == "logit":
            return str(g("Sigmoid", x))
        # The normal distribution function as the version computes it (Abramowitz and Stegun 1964, 7.1.26)
        z = g("Mul", g("Abs", x), g.double(np.sqrt(0.5)))
        t = g("Div", g.double(1), g("Add", g.double(1), g("Mul", g.double(0.3275911), z)))
        series = g.double(0)
        for factor in (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592):
            series = g("Mul", t, g("Add", g.double(factor), series))
        tail = g("Mul", g("Mul", series, g("Exp", g("Neg", g("Mul", z, z)))), g.double(0.5))
        return str(g("Where", g("Greater", x, g.double(0)), g("Sub", g.double(1), tail), tail))


def lists(recommender: Recommender) -> Any:
    """A user and a history in, the n best items out, as `Recommender.recommend` answers for a user that it knows.

    Inputs: `user` (1,) int64; `history` (h,) int64, items, each once, the newest last; `ratings` (h,) float32; `n` (1,)
    int64.
    Outputs: `items` int64, `scores` float64 and `like_probability` float32, (m,) each, m at most n: fewer where fewer
    are left that are not in the history.

    Raises:
        InputError: as `scores` does, and for a version without a list model.
    """
    model = recommender.lists
    if model is None:
        raise InputError("this version makes no lists; train it again with lists=true, or export with lists=false")
    g = _Graph()
    scorer = _Scorer(g, recommender)
    n_items = len(recommender.knowledge.item_ids)
    neighbours, weights = _padded(model.item_to_item.starts, model.item_to_item.neighbours, model.item_to_item.weights)
    g.constant(neighbours, "neighbours")  # (n_items, k) int64, n_items where there are fewer
    g.constant(weights, "weights")  # (n_items, k) float32
    g.constant(model.popularity.astype(np.float64), "popularity")
    values = _values(g, recommender)
    added = g("Mul", g("Gather", "weights", "history"), g("Unsqueeze", values, g.whole(1)))
    flat = [g("Reshape", part, g.whole(-1)) for part in (g("Gather", "neighbours", "history"), added)]
    empty = g.constant(np.zeros(n_items + 1))
    carried = g("ScatterElements", empty, flat[0], g.doubled(flat[1]), reduction="add")
    carried = g("Slice", carried, g.whole(0), g.whole(n_items))
    small = g("Mul", "popularity", g.constant(np.array(_POPULARITY_WEIGHT)))
    told = g("Greater", g("ReduceSum", values, keepdims=0), g.number(0.0))
    takes = g("Where", told, g("Add", carried, small), "popularity")
    never = g("Expand", g.constant(np.array([-np.inf])), g("Shape", "history"))
    takes = g("ScatterElements", takes, "history", never)
    most = g("Min", g("Max", "n", g.whole(POOL)), g.whole(n_items))
    pool = g("TopK", takes, most, outputs=2)[1]
    pool = g("TopK", pool, most, outputs=2, largest=0)[0]  # ascending: equal products are ordered by code
    weight = g("Gather", takes, pool)
    like = scorer.scores("user", pool)[1]
    power = g("Pow", like, g.constant(np.array(model.exponent)))
    zero = g.constant(np.array(0.0))
    product = g("Where", g("Greater", weight, zero), g("Mul", g("Max", weight, zero), power), weight)
    best, at = g("TopK", product, g("Min", "n", most), outputs=2)
    left = g("Greater", best, g.constant(np.array(-1e300)))
    g.named(g("Compress", g("Gather", pool, at), left), "items")
    g.named(g("Compress", best, left), "scores")
    g.named(g.single(g("Compress", g("Gather", like, at), left)), "like_probability")
    whole, real, double = TensorProto.INT64, TensorProto.FLOAT, TensorProto.DOUBLE
    return g.model(
        {"user": (whole, [1]), "history": (whole, ["h"]), "ratings": (real, ["h"]), "n": (whole, [1])},
        {"items": (whole, ["m"]), "scores": (double, ["m"]), "like_probability": (real, ["m"])},
    )


_POPULARITY_WEIGHT = 1e-6  # as in recsys.models.base.lists


def _values(g: _Graph, recommender: Recommender) -> str:
    """What each item of the history counts, (h,) float32: what its rating does, less by half with each half-life."""
    assert recommender.lists
    counted, half_life = _of_ratings(g, recommender), recommender.lists.regression.half_life
    if half_life is None:
        return counted
    size = g("Squeeze", g("Shape", "history"))
    zero, one = (g.constant(np.array(number, np.int64)) for number in (0, 1))
    newer = g.single(g("Sub", g("Sub", size, one), g("Range", zero, size, one)))
    halvings = g("Min", g("Div", newer, g.number(half_life)), g.number(MOST_HALVINGS))
    return str(g("Mul", counted, g("Pow", g.number(0.5), halvings)))


def _of_ratings(g: _Graph, recommender: Recommender) -> str:
    """What each rating of the history counts, (h,) float32: a line through two ratings, or one step."""
    assert recommender.lists
    knowledge, regression = recommender.knowledge, recommender.lists.regression
    if regression.signal == "likes":
        liked = g("GreaterOrEqual", "ratings", g.number(knowledge.like_threshold))
        return str(g("Cast", liked, to=TensorProto.FLOAT))
    ends = regression.values(np.array(knowledge.scale), knowledge.scale, knowledge.like_threshold).astype(float)
    low, high = knowledge.scale
    slope = (ends[1] - ends[0]) / ((high - low) or 1.0)
    return str(g("Add", g("Mul", "ratings", g.number(slope)), g.number(ends[0] - slope * low)))


def _padded(starts: Array, neighbours: Array, weights: Array) -> tuple[Array, Array]:
    """Rows of different lengths as two tables, filled up with an item that there is not, of weight 0."""
    counts = np.diff(starts)
    n, width = len(counts), max(1, int(counts.max(initial=0)))
    row = np.repeat(np.arange(n), counts)
    column = np.arange(len(neighbours)) - np.repeat(starts[:-1], counts)
    padded = np.full((n, width), n, np.int64), np.zeros((n, width), np.float32)
    padded[0][row, column], padded[1][row, column] = neighbours, weights
    return padded
