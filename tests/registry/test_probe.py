import json

import pytest

from recsys.errors import InputError
from registry import documents, probe, versions
from tests.support.serving_site import two_tastes


def test_a_version_is_told_by_its_answers(register):
    (version,) = register()
    probe.check(version, two_tastes())  # nothing is kept yet
    probe.record(version, two_tastes())
    kept = versions.find_or_raise_version("recsys", version.number)
    probe.check(kept, two_tastes())
    probe.record(kept, two_tastes())
    for asked in (probe.check, probe.record):
        with pytest.raises(InputError, match=r"version 1 of 'recsys' does not answer as it did .* user 'u1' and item"):
            asked(kept, two_tastes(liked=0.95))
    assert versions.find_or_raise_version("recsys", version.number).tags == version.tags


def test_the_answers_that_the_release_before_kept_in_a_tag_are_compared(register):
    (version,) = register()
    probe.record(version, two_tastes())
    answers = documents.find(version.run_id, "probe.1.json")["answers"]
    (earlier,) = register(**{"probe.1": json.dumps(answers)})
    probe.check(earlier, two_tastes())
    with pytest.raises(InputError, match="does not answer as it did"):
        probe.check(earlier, two_tastes(liked=0.95))
