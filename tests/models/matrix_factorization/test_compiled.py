import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import recsys
from recsys.data.interactions import Interactions
from recsys.models.matrix_factorization import compiled
from recsys.models.matrix_factorization.compiled import BLOCK, FEWEST_BLOCKS, LANE, CompiledEngine, RowsInMemory
from recsys.models.matrix_factorization.config import Config
from recsys.models.matrix_factorization.training import Problem

N_USERS, N_ITEMS = 30, 20

FITS = """
import json, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from recsys.data.interactions import Interactions
from recsys.models.matrix_factorization import compiled
from recsys.models.matrix_factorization.config import Config
from recsys.models.matrix_factorization.training import Problem
rows = Interactions(np.arange(60) % 6, np.arange(60) % 7, np.arange(60) % 5.0)
factors, history, _ = compiled.fit_factors(Problem(rows, (6, 7), Config(epochs=3, embedding_size=4), 0))
hits = [sum(kernel.stats.cache_hits.values()) for kernel in compiled.kernels()]
print(json.dumps([hits, history[-1].train_rmse, factors.user_bias.tolist()]))
"""


def rated(n, seed=0):
    random = np.random.default_rng(seed)
    return Interactions(random.integers(0, N_USERS, n), random.integers(0, N_ITEMS, n), random.normal(size=n))


def problem(rows, **settings):
    return Problem(rows, (N_USERS, N_ITEMS), Config(**settings), 0, validation=rows)


def test_an_epoch_is_koren_s_update_of_one_rating_after_the_other():
    engine = CompiledEngine(problem(rated(400), embedding_size=5, regularization=0.2))
    users, items, ratings, order, block = next(CompiledEngine(engine.problem).source.pieces(1))
    p, q = (side.factors.astype(float) for side in (engine.users, engine.items))
    (b_u, of_u), (b_i, of_i) = (side.scalars.astype(float).T for side in (engine.users, engine.items))
    rate, squares = 0.3, 0.0
    for row in np.arange(400).reshape(-1, block)[order].ravel():
        u, i = users[row], items[row]
        error = ratings[row] - (b_u[u] + b_i[i] + p[u] @ q[i])
        squares += error**2
        b_u[u] += rate * (error - of_u[u] * b_u[u])
        b_i[i] += rate * (error - of_i[i] * b_i[i])
        p[u], q[i] = p[u] + rate * (error * q[i] - of_u[u] * p[u]), q[i] + rate * (error * p[u] - of_i[i] * q[i])
    assert engine.run_epoch(rate, 1) == pytest.approx(squares / 400, rel=1e-5)
    np.testing.assert_allclose(engine.users.factors, p, atol=1e-6)
    np.testing.assert_allclose(engine.items.factors, q, atol=1e-6)
    np.testing.assert_allclose(engine.users.scalars[:, 0], b_u, atol=1e-6)
    np.testing.assert_allclose(engine.items.scalars[:, 0], b_i, atol=1e-6)
    expected = p[users] * q[items]
    engine.held_out = users, items, ratings
    np.testing.assert_allclose(engine.predict(), b_u[users] + b_i[items] + expected.sum(1), atol=1e-5)


def test_what_fills_the_tables_up_stays_zero():
    engine = CompiledEngine(problem(rated(400), embedding_size=LANE + 3))
    engine.run_epoch(0.3, 1)
    for side in (engine.users, engine.items):
        assert side.factors.shape[1] == 2 * LANE
        assert not side.factors[:, LANE + 3 :].any()
        assert not side.factors[-1].any()
        assert not side.scalars[-1, 0].any()
        assert side.factors[:, : LANE + 3].any()


@pytest.mark.parametrize("n", [1, 63, 64, 65, 3 * FEWEST_BLOCKS - 1, BLOCK * FEWEST_BLOCKS + 5])
def test_an_epoch_has_every_row_once_and_each_another_order(n):
    columns = np.zeros(n, np.int32), np.zeros(n, np.int32), np.arange(n, dtype=np.float32)
    source = RowsInMemory(columns, (1, 1), np.random.default_rng(0))
    orders = []
    for epoch in (1, 2):
        ((_, _, ratings, order, block),) = source.pieces(epoch)
        orders.append(np.concatenate([ratings[b * block : (b + 1) * block] for b in order]))
        assert sorted(orders[-1]) == list(range(n))
    if n > 50:
        assert not np.array_equal(*orders)
        assert not np.array_equal(orders[0], np.arange(n))


def test_the_batch_size_makes_no_difference():
    one, other = (
        compiled.fit_factors(problem(rated(500), epochs=4, batch_size=size, embedding_size=4))[0] for size in (1, 999)
    )
    np.testing.assert_array_equal(one.user_factors, other.user_factors)


@pytest.fixture
def start(tmp_path):
    """Starts a process that trains, with a cache folder for its user."""

    def start(cache):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_")}
        environment |= {"XDG_CACHE_HOME": str(cache), "HOME": str(tmp_path)}
        command = [sys.executable, "-c", FITS, str(Path(recsys.__file__).parents[1])]
        return subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True)

    return start


def answer(process):
    out, _ = process.communicate()
    assert process.returncode == 0
    return json.loads(out)


@pytest.mark.process
def test_what_was_compiled_is_kept_in_the_user_s_cache_folder_by_several_processes_at_once(start, tmp_path):
    first = [answer(process) for process in [start(tmp_path / "cache") for _ in range(3)]]
    kept = sorted(path.suffix for path in (tmp_path / "cache" / "recsys" / "numba").rglob("*.nb?"))
    assert kept == [".nbc", ".nbc", ".nbi", ".nbi"]
    assert not list(Path(recsys.__file__).parent.rglob("*.nb?"))
    again = answer(start(tmp_path / "cache"))
    assert again[0] == [1, 1]  # read, not compiled
    assert [found[1:] for found in first] == [again[1:]] * 3


@pytest.mark.process
def test_it_trains_where_the_cache_folder_cannot_be_written_or_holds_something_else(start, tmp_path):
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    unkept = answer(start(tmp_path / "file"))
    assert unkept[0] == [0, 0]
    kept = answer(start(tmp_path / "cache"))
    for path in (tmp_path / "cache").rglob("*.nb?"):
        path.write_bytes(b"cut off")
    assert answer(start(tmp_path / "cache"))[1:] == unkept[1:] == kept[1:]
