"""What MkDocs does to the pages: the README is the start, and links that leave docs/ become plain text.

The site stands alone, and the files of the project are not part of it.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

PROJECT = Path(__file__).resolve().parent.parent
START = "index.md"
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)#]+)(#[^)]*)?\)")


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the README as the first page, its links as from docs/."""
    text = (PROJECT / "README.md").read_text(encoding="utf-8").replace("](docs/", "](")
    files.append(File.generated(config, START, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Keep the words of a link whose target is in the project and not on the site."""
    folder = Path(page.file.src_uri).parent

    def shown(found: re.Match[str]) -> str:
        target = (PROJECT / "docs" / folder / found[2]).resolve()
        inside = target.is_relative_to(PROJECT / "docs") and files.get_file_from_path(
            target.relative_to(PROJECT / "docs").as_posix()
        )
        of_project = target.exists() or (PROJECT / folder / found[2]).exists()
        return found[0] if inside or not of_project else found[1]

    return _LINK.sub(shown, markdown)
