import pytest

from tests.support.matrix_factorization_fits import hold
from tests.support.process_groups import together

pytestmark = pytest.mark.process

SIZE = 3


@pytest.fixture(scope="module")
def held(tmp_path_factory):
    return together(SIZE, hold, tmp_path_factory.mktemp("held"))


def test_each_process_holds_its_rows_of_the_tables_and_of_the_counts(held):
    # 3,001 rows in parts of 1,001, and 2,001 in parts of 667: the last process has what is left.
    for rank, (users, items) in enumerate([(1001, 667), (1001, 667), (999, 667)]):
        assert held[rank]["tables"] == {
            "users.weight": [users, 5],
            "user_bias.weight": [users, 1],
            "items.weight": [items, 5],
            "item_bias.weight": [items, 1],
            "weight": [5],
        }
        assert held[rank]["row"]["counts"] == (users, items)


def test_the_parts_start_as_the_whole_tables_do(held):
    for answer in held:
        assert [answer[f"same {name}"] for name in answer["tables"]] == [True] * 5


def test_no_process_makes_a_whole_table_nor_a_gradient_of_one(held):
    assert [answer["row"]["largest"] for answer in held] == [1001, 1001, 999]
    assert [answer["none"]["largest"] for answer in held] == [3001] * 3  # the same eyes see whole tables


def test_a_step_sends_what_the_arithmetic_says(held):
    # Whole tables: the gradients of 5,002 rows of 5 + 1 floats and of the weight, around a ring.
    assert held[0]["none"]["sent"] == pytest.approx((5002 * 6 + 5) * 4 * 2 * (SIZE - 1) / SIZE, rel=1e-3)
    # Split tables: codes to all; factors and biases from all, twice, as gloo does it; their gradients to all; and the
    # weight's gradient around a ring.
    codes, rows = 60 * 2 * 8, 60 * 2 * 6 * 4
    expected = (codes + 2 * rows + rows + 2 * 5 * 4) * (SIZE - 1) / SIZE
    assert held[0]["row"]["sent"] == pytest.approx(expected, rel=1e-2)
