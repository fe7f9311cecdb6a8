"""The page of a server that serves."""

import pytest
from playwright.sync_api import Page, expect

from tests.support.serving_site import Server, form

expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    running = Server(folder / "serving")
    running.point_at(form(folder / "one", titles={f"i{number}": f"Film {number} <b>" for number in range(24)}))
    try:
        yield running.start()
    finally:
        running.stop()


def test_a_rating_changes_the_list_that_is_shown(page: Page, server: Server, tmp_path):
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.set_viewport_size({"width": 390, "height": 800})  # a phone's
    page.goto(f"{server.address}/")
    expect(page.get_by_text("version 1 (table)")).to_be_visible()
    page.get_by_label("User").fill("u2")
    page.get_by_role("button", name="Show the list").click()
    expect(page.locator("#policy")).to_contain_text("personal")
    first = page.locator("#list tr").first.locator("td").first.inner_text()
    assert first.startswith("Film ")
    assert first.endswith(" <b>")
    page.get_by_label(f"rate {first}", exact=True).select_option("5")
    expect(page.locator("#history tr").first).to_contain_text(first)
    expect(page.get_by_label(f"rate {first}", exact=True)).to_have_count(0)
    expect(page.locator("#traffic")).to_contain_text("1 events kept")
    page.screenshot(path=tmp_path / "page.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    assert all(url.startswith(server.address) for url in asked)


def test_an_error_is_shown(page: Page, server: Server):
    page.goto(f"{server.address}/")
    page.get_by_label("User").fill("x" * 600)
    page.get_by_role("button", name="Show the list").click()
    expect(page.locator("#told")).to_contain_text("512 characters")


def test_the_documentation_lists_what_there_is(page: Page, server: Server):
    page.goto(f"{server.address}/docs")
    expect(page.get_by_role("heading", name="GET /api/recommend/{user}")).to_be_visible()
