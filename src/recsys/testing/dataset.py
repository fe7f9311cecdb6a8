"""The test kit of whoever writes datasets: does a folder keep the contract of docs/your-data.md?

    python -m recsys.testing.dataset FOLDER                             a folder with its manifest
    python -m recsys.testing.dataset FOLDER --seal --ratings=orders     one without: checks, and adds the manifest

Behind --seal stand the parameters of prepare that say how it was made, such as --split=time or --test_size=0.1. Exits
with 1 and a line for everything that is wrong.
"""

import sys
from pathlib import Path
from typing import NoReturn

from recsys.data import layout
from recsys.data.manifest import NAME
from recsys.data.preparation import Preparation
from recsys.errors import InputError
from recsys.settings import parse_settings


def main(arguments: list[str]) -> None:
    """Read the command line and do it."""
    words = [word for word in arguments if not word.startswith("--")]
    options = [word.removeprefix("--") for word in arguments if word.startswith("--")]
    if len(words) != 1 or "help" in options:
        sys.exit(__doc__)
    folder = Path(words[0])
    try:
        if not folder.is_dir():
            raise InputError(f"{folder}: a folder is needed")
        if "seal" in options:
            given = dict(option.partition("=")[::2] for option in options if option != "seal")
            preparation = parse_settings(Preparation, {"ratings": str(folder.absolute()), **given})
            print(f"sealed {folder}: dataset {layout.seal(folder, preparation)}")
            return
        if options:
            raise InputError(f"unknown option --{options[0]}; see --help")
        if not (folder / NAME).is_file():
            raise InputError(f"{folder}: there is no {NAME}; add it by --seal")
    except InputError as error:
        _fail([str(error)])
    if problems := layout.check(folder):
        _fail(problems)
    print(f"{folder}: keeps the contract")


def _fail(problems: list[str]) -> NoReturn:
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
