"""Run the commands whose output the documentation shows, and write what they print into the pages, or compare it.

    python docs/transcripts.py            write: `make transcripts`
    python docs/transcripts.py --check    compare: a part of `make check`

A block is run where the line before it is `<!-- transcript -->`. In a console block, what follows `$` is typed in a
scratch folder with a store of its own, and the lines below it are what was printed. A block of Python shows the value
of its last expression in the block after it. Blocks are run in the order of the pages, so that a later one finds what
an earlier one made. When they are compared, words have to be the same; numbers may differ by one part in a hundred, as
they do between processors, and times by more.
"""

import argparse
import difflib
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "docs/your-data.md", "docs/tuning.md")
BLOCK = re.compile(
    r"^<!-- transcript -->\n```(?P<kind>console|python)\n(?P<text>.*?)^```\n(?:\n```\n(?P<output>.*?)^```\n)?",
    re.DOTALL | re.MULTILINE,
)
LOG_OF_MLFLOW = re.compile(r"^\d{4}/\d\d/\d\d [\d:]{8} (INFO|WARNING|ERROR) mlflow.*\n", re.MULTILINE)
NUMBER = re.compile(r"(?<![\w.])-?\d+(?:,\d{3})*(?:\.\d+)?(?!\w)")
TOLERANCE = 0.01  # relative
SECONDS = re.compile(r"\d+\.\d s\b")  # of the machine and of what else it does
SHOWN_DATA = "~/.local/share/recsys"
WRONG_LINE = 17
SHOWS_VALUE = """
import ast, sys
*statements, last = ast.parse(sys.argv[1]).body
exec(compile(ast.Module(statements, []), "page", "exec"))
print(eval(compile(ast.Expression(last.value), "page", "eval")))
"""


class Scratch:
    """A folder in which commands are typed, with a store and prepared data of its own; downloads are the user's."""

    def __init__(self, folder: Path) -> None:
        """Write the files that the pages name."""
        from steps.support.entrypoint import data_folder

        self.folder, self.home = folder, folder / "home"
        self.home.mkdir()
        rows = [f"u{row},i{row},3" for row in range(2, WRONG_LINE)] + ["u1,i1,abc"]
        (self.home / "ratings.csv").write_text("\n".join(["user_id,item_id,rating", *rows]) + "\n", encoding="utf-8")
        data = folder / "data"
        data.mkdir()
        downloads = data_folder() / "downloads"
        downloads.mkdir(parents=True, exist_ok=True)
        (data / "downloads").symlink_to(downloads)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW_", "RECSYS_"))}
        self.environment = kept | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.home}/mlflow.db",
            "RECSYS_DATA": str(data),
        }

    def type(self, command: str) -> str:
        """What a line of a console prints."""
        if "…" in command:  # something only the reader knows stands there
            return ""
        command = re.sub(r"^make run$", "mlflow run . --env-manager local", command)
        return self._run(["bash", "-c", command.replace("mlflow run .", f"mlflow run {PROJECT}")])

    def evaluate(self, code: str) -> str:
        """The value of the last expression of a piece of Python."""
        return self._run([sys.executable, "-W", "ignore", "-c", SHOWS_VALUE, code])

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(
            command,
            cwd=self.home,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        printed = LOG_OF_MLFLOW.sub("", done.stdout)
        printed = printed.replace(str(self.folder / "data"), SHOWN_DATA).replace(f"{self.home}/", "")
        return printed.replace("mlflow ui --backend-store-uri sqlite:///mlflow.db", "make ui")  # as in a clone


def made_anew(found: re.Match[str], scratch: Scratch) -> str:
    """A block with what its commands print now."""
    begin = f"<!-- transcript -->\n```{found['kind']}\n"
    if found["kind"] == "python":
        return f"{begin}{found['text']}```\n\n```\n{scratch.evaluate(found['text'])}```\n"
    commands = [line for line in found["text"].splitlines() if line.startswith("$ ")]
    return begin + "".join(f"{line}\n{scratch.type(line.removeprefix('$ '))}" for line in commands) + "```\n"


def is_same(shown: str, printed: str) -> bool:
    """Whether the words are the same, and the numbers but for their last digits."""
    shown, printed = (SECONDS.sub("seconds", text) for text in (shown, printed))
    words = [NUMBER.sub("#", text).split() for text in (shown, printed)]
    numbers = [[float(number.replace(",", "")) for number in NUMBER.findall(text)] for text in (shown, printed)]
    close = all(abs(a - b) <= TOLERANCE * max(abs(a), abs(b)) for a, b in zip(*numbers, strict=False))
    return words[0] == words[1] and len(numbers[0]) == len(numbers[1]) and close


def main(check: bool) -> None:
    """Write all blocks, or end with the differences."""
    differences: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Scratch(Path(folder))
        for name in PAGES:
            page = PROJECT / name
            shown = page.read_text(encoding="utf-8")
            if not BLOCK.search(shown):
                raise SystemExit(f"{name} has no line <!-- transcript --> before a block")
            printed = BLOCK.sub(lambda found: made_anew(found, scratch), shown)
            if not check:
                page.write_text(printed, encoding="utf-8")
            elif not is_same(shown, printed):
                lines = [text.splitlines(keepends=True) for text in (shown, printed)]
                differences += difflib.unified_diff(*lines, name, f"{name}, as printed now", n=0)
    if differences:
        raise SystemExit("".join(differences) + "error: the pages show something else; run `make transcripts`")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    sys.path[:0] = [str(PROJECT), str(PROJECT / "src")]
    main(parser.parse_args().check)
