import numpy as np
import pytest

from tests.support.bayesian_mf_fits import fit_both, share
from tests.support.process_groups import together

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def alone():
    """The same fits in one process, without a group."""
    seen = []
    return fit_both(seen=seen) | {"curve": seen}


def assert_same(answer, alone):
    assert answer["choices"] == alone["choices"]
    for name in alone.keys() - {"curve", "choices"}:
        np.testing.assert_array_equal(answer[name], alone[name], err_msg=name)


def test_processes_share_one_chain_and_all_have_its_draws(alone, tmp_path):
    for answer in together(3, share, tmp_path):
        assert_same(answer, alone)
        assert answer["curve"] == alone["curve"]
        assert answer["loaded"] is None
        # An exchange for each side, and one on whether to stop: a hang is named by them.
        assert answer["waits"] > 2 * len(alone["curve"])
        assert answer["sent"] > 0


def test_a_chain_that_was_stopped_goes_on_in_another_number_of_processes(alone, tmp_path):
    late = len(alone["curve"]) - 5
    stopped = together(2, share, tmp_path, late)
    assert [answer["stopped"] for answer in stopped] == [late, late]
    assert stopped[0]["saved"] > 0
    for answer in together(3, share, tmp_path):
        assert_same(answer, alone)
        assert answer["loaded"] is not None
        assert answer["curve"][-5:] == alone["curve"][-5:]
        assert len(answer["curve"]) < len(alone["curve"])
