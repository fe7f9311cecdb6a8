import re
from pathlib import Path

import pytest

from recsys import models
from recsys.models.base.capabilities import family_names

PAGE = Path(__file__).resolve().parents[2] / "docs" / "adding-a-family.md"
EXAMPLE = "item_mean"
"""The family that docs/adding-a-family.md shows; it meets the contract as it stands there."""


@pytest.fixture(scope="module", params=[*family_names(), EXAMPLE])
def family(request, tmp_path_factory):
    """The name of every family in turn."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == EXAMPLE:
            code = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
            folder = tmp_path_factory.mktemp("families")
            (folder / f"{EXAMPLE}.py").write_text(code[1], encoding="utf-8")
            patch.setattr(models, "__path__", [*models.__path__, str(folder)])
        yield request.param
