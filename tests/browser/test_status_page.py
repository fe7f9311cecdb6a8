"""The page /status of a server that a monitor looks at."""

import json
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from recsys.monitoring import state
from recsys.monitoring.checks import CHECKS
from tests.support.served_traffic import DAY, INJECTIONS, Injection, write
from tests.support.served_world import World, make_world, report
from tests.support.serving_site import Server, form

expect.set_options(timeout=60_000)


@pytest.fixture(scope="module")
def world() -> World:
    return make_world()


@pytest.fixture
def server(tmp_path):
    running = Server(tmp_path / "serving", workers=1)
    running.point_at(form(tmp_path / "one"))
    try:
        yield running.start()
    finally:
        running.stop()


def look(server: Server, world: World, path: Path, number: int, inject: Injection | None) -> None:
    """What one look of the monitor leaves beside the server."""
    random = np.random.default_rng(number)
    given = inject(world.given, random) if inject else world.given
    write(path, given, world.recommender, random, since=0, until=DAY)
    found = report(path, lambda version: world.recommender, reference=world.reference, look=number)
    about = {"version": "1", "family": "table", "decisions": {"promoted": 1}}
    state.write_state(server.folder, found, about)


def test_it_says_what_is_alarmed_and_draws_the_course(page: Page, server: Server, world: World, tmp_path):
    asked: list[str] = []
    wrong: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.set_viewport_size({"width": 390, "height": 800})  # a phone's
    page.goto(f"{server.address}/status")
    expect(page.locator("#version")).to_contain_text("version 1 (table)")
    expect(page.locator("#alarms")).to_contain_text("monitor has not run yet")

    look(server, world, tmp_path / "first.db", 1, None)
    page.reload()
    expect(page.locator("#alarms")).to_contain_text(f"none; {len(CHECKS)} of {len(CHECKS)} checks were judged")

    look(server, world, tmp_path / "second.db", 2, INJECTIONS["rating level -0.5"][0])
    server.get("api/recommend/u2")
    page.reload()
    expect(page.locator("#alarms .critical")).to_contain_text("critical rating level")
    expect(page.locator("#alarms")).to_contain_text("from it: ")
    expect(page.locator("#course svg polyline").first).to_be_visible()  # two looks make a line
    expect(page.locator("#checks svg")).to_have_count(len(CHECKS))
    expect(page.get_by_role("img", name="rating level")).to_contain_text("2 looks")
    expect(page.locator("#measures tr").filter(has_text="version 1").filter(has_text="rmse").first).to_be_visible()
    expect(page.locator("#now")).to_contain_text("lists")
    page.screenshot(path=tmp_path / "status.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    heights = page.evaluate("[...document.querySelectorAll('#measures tr')].map(row => row.offsetHeight)")
    assert max(heights) < 50  # no number is cut in two
    assert all(url.startswith(server.address) for url in asked)
    assert wrong == []


def test_it_says_how_a_trial_stands(page: Page, server: Server):
    point = {"at": 1.0, "users": 250, "difference": 0.01, "low": -0.02, "high": 0.04, "guards": {"errors": 0.4}}
    guard = {"name": "errors", "champion": 1, "challenger": 4, "score": 0.4}
    told = {"version": 2, "champion": 1, "mode": "with 10% of the users", "started": "2026-11-29T12:00:00+00:00"}
    told |= {"reward": "like", "outcome": "", "reason": "difference in like a user +0.0100", "guards": [guard]}
    page.goto(f"{server.address}/status")
    expect(page.locator("#version")).to_contain_text("version 1 (table)")
    expect(page.locator("#trial")).to_be_hidden()
    course = [point, point | {"difference": 0.02, "low": -0.01}]
    (server.folder / "trial.json").write_text(json.dumps(told | {"course": course}))
    page.reload()
    expect(page.locator("#trial-of")).to_contain_text("version 2 against version 1 with 10% of the users")
    expect(page.locator("#trial-told")).to_have_text("running: difference in like a user +0.0100")
    expect(page.locator("#trial-course svg polyline").first).to_be_visible()
    expect(page.locator("#guards tr")).to_contain_text("errors140.4")
    assert "recsys_trial" not in server.get("metrics").text  # what lacks numbers is left out
