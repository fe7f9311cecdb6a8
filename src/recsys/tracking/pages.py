"""Searches of MLflow whose answers come in pages."""

from collections.abc import Callable
from typing import Any


def all_pages(search: Callable[..., Any], **arguments: Any) -> list[Any]:
    """All pages of a search."""
    page = search(**arguments)
    found = list(page)
    while page.token:
        page = search(**arguments, page_token=page.token)
        found += page
    return found
