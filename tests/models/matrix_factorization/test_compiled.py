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
from recsys.models.matrix_factorization.compiled import LANE, NEAR_LINES, CompiledEngine
from recsys.models.matrix_factorization.config import Config
from recsys.models.matrix_factorization.grid import BLOCKS
from recsys.models.matrix_factorization.training import Problem

N_USERS, N_ITEMS = 30, 20

FITS = """
import json, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from recsys.data.interactions import Interactions
from recsys.models.matrix_factorization import cells, compiled
from recsys.models.matrix_factorization.config import Config
from recsys.models.matrix_factorization.training import Problem
rows = Interactions(np.arange(60) % 6, np.arange(60) % 7, np.arange(60) % 5.0)
factors, history, _ = compiled.fit_factors(Problem(rows, (6, 7), Config(epochs=3, embedding_size=4), 0))
hits = [sum(kernel.stats.cache_hits.values()) for kernel in [*compiled.kernels(), cells.sorter()]]
print(json.dumps([hits, history[-1].train_rmse, factors.user_bias.tolist()]))
"""


def rated(n, seed=0):
    random = np.random.default_rng(seed)
    return Interactions(random.integers(0, N_USERS, n), random.integers(0, N_ITEMS, n), random.normal(size=n))


def problem(rows, sizes=(N_USERS, N_ITEMS), **settings):
    return Problem(rows, sizes, Config(**settings), 0, validation=rows)


@pytest.mark.parametrize(("n_users", "embedding_size"), [(N_USERS, 5), (N_USERS, LANE + 3), (16 * NEAR_LINES, 5)])
def test_an_epoch_is_koren_s_update_of_one_rating_after_the_other(n_users, embedding_size):
    learnt = problem(rated(400), (n_users, N_ITEMS), embedding_size=embedding_size, regularization=0.2)
    engine = CompiledEngine(learnt).initialize()
    p, q = (side.factors.astype(float) for side in (engine.users, engine.items))
    (b_u, of_u), (b_i, of_i) = (np.moveaxis(side.scalars.astype(float), 2, 0) for side in (engine.users, engine.items))
    rate, squares, done = 0.3, 0.0, 0
    ((_, shifts, turns),) = engine.source.turns(1, BLOCKS)
    for shift, firsts, lasts in zip(shifts, turns.firsts, turns.lasts, strict=True):
        for block in range(BLOCKS):
            for run in turns.order[firsts[block] : lasts[block]]:
                for row in range(turns.begins[run], turns.ends[run]):
                    u, i = (block, turns.users[row]), (block ^ shift, turns.items[row])
                    error = turns.ratings[row] - (b_u[u] + b_i[i] + p[u] @ q[i])
                    squares, done = squares + error**2, done + 1
                    b_u[u] += rate * (error - of_u[u] * b_u[u])
                    b_i[i] += rate * (error - of_i[i] * b_i[i])
                    of_p, of_q = error * q[i] - of_u[u] * p[u], error * p[u] - of_i[i] * q[i]
                    p[u], q[i] = p[u] + rate * of_p, q[i] + rate * of_q
    assert done == 400
    assert engine.run_epoch(rate, 1) == pytest.approx(squares / 400, rel=1e-5)
    np.testing.assert_allclose(engine.users.factors, p, atol=1e-6)
    np.testing.assert_allclose(engine.items.factors, q, atol=1e-6)
    np.testing.assert_allclose(engine.users.scalars[:, :, 0], b_u, atol=1e-6)
    np.testing.assert_allclose(engine.items.scalars[:, :, 0], b_i, atol=1e-6)
    rows = engine.problem.validation
    u, i = engine.grid.place(rows.users), engine.grid.place(rows.items)
    np.testing.assert_allclose(engine.predict(), b_u[u] + b_i[i] + (p[u] * q[i]).sum(1), atol=1e-5)


@pytest.mark.parametrize("threads", [2, 3, 20])
def test_any_number_of_threads_learns_what_one_learns(threads):
    one, other = (CompiledEngine(problem(rated(4000), embedding_size=5)).initialize() for _ in range(2))
    other.use_threads(threads)
    assert len(other.parts) == min(threads, BLOCKS)
    errors = [(one.run_epoch(0.1, epoch), other.run_epoch(0.1, epoch)) for epoch in (1, 2)]
    assert all(alone == together for alone, together in errors)
    for table, same in zip(one.tables, other.tables, strict=True):
        np.testing.assert_array_equal(table, same)


def test_tables_begin_where_a_line_of_the_cache_does():
    engine = CompiledEngine(problem(rated(10), embedding_size=5))
    assert [table.ctypes.data % (4 * LANE) for table in engine.tables] == [0] * 4


def test_what_fills_the_tables_up_stays_zero():
    engine = CompiledEngine(problem(rated(400), embedding_size=LANE + 3)).initialize()
    engine.run_epoch(0.3, 1)
    for side in (engine.users, engine.items):
        assert side.factors.shape[2] == 2 * LANE
        assert not side.factors[:, :, LANE + 3 :].any()
        assert not side.factors[:, -1].any()
        assert not side.scalars[:, -1, 0].any()
        assert side.factors[:, :, : LANE + 3].any()


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
    assert kept == [".nbc"] * 3 + [".nbi"] * 3
    assert not list(Path(recsys.__file__).parent.rglob("*.nb?"))
    again = answer(start(tmp_path / "cache"))
    assert again[0] == [1, 1, 1]  # read, not compiled
    assert [found[1:] for found in first] == [again[1:]] * 3


@pytest.mark.process
def test_it_trains_where_the_cache_folder_cannot_be_written_or_holds_something_else(start, tmp_path):
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    unkept = answer(start(tmp_path / "file"))
    assert unkept[0] == [0, 0, 0]
    kept = answer(start(tmp_path / "cache"))
    for path in (tmp_path / "cache").rglob("*.nb?"):
        path.write_bytes(b"cut off")
    assert answer(start(tmp_path / "cache"))[1:] == unkept[1:] == kept[1:]
