"""How the outputs that the documentation shows are compared with what is printed; `make check` runs the commands."""

import runpy
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
TRANSCRIPTS = runpy.run_path(str(PROJECT / "docs" / "transcripts.py"))


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("rmse 0.8983 of 19,896", "rmse 0.8985 of 19,896", True),
        ("rmse 0.8983", "rmse 0.9983", False),
        ("19,896 rows", "29,896 rows", False),
        ("trial 0 (1.2 s; damping=5)", "trial 0 (31.9 s; damping=5.01)", True),
        ("trial 0 (1.2 s; damping=5)", "trial 0 (1.2 s; damping=6)", False),
        ("version 3 wins", "version 3 won", False),
        ("one line", "one line\nand 1 more", False),
        ("a   table", "a table", True),
        ("digest 98cf1b0229507cb6", "digest 98cf1b0229507cb7", False),
    ],
)
def test_words_are_compared_and_the_last_digits_are_not(shown, printed, same):
    assert TRANSCRIPTS["is_same"](shown, printed) is same


class Prints:
    def type(self, command):
        return f"did {command}\n"

    def evaluate(self, code):
        return "3\n"


def test_blocks_behind_the_mark_are_made_anew_and_no_others():
    console = "<!-- transcript -->\n```console\n$ do this\n{}$ do that\n{}```\n"
    python = "<!-- transcript -->\n```python\n1 + 2\n```\n\n```\n{}```\n"
    rest = "text\n\n```console\n$ do this\nold\n```\n"
    page = (console.format("old\n", "") + rest + python.format("old\n")).join(["# Title\n", "end\n"])
    expected = (console.format("did do this\n", "did do that\n") + rest + python.format("3\n")).join(
        ["# Title\n", "end\n"]
    )
    assert TRANSCRIPTS["BLOCK"].sub(lambda found: TRANSCRIPTS["made_anew"](found, Prints()), page) == expected
