"""Rules, dashboard and `make watch`, with a real Prometheus and Alertmanager."""

import http.server
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import requests
import yaml

from server import watch
from tests.support.services import free_port
from tests.support.serving_site import Server, form
from tests.support.waiting import wait

FILES = Path(watch.__file__).parent.parent / "deploy" / "monitoring"
DASHBOARD = json.loads((FILES / "grafana" / "recsys.json").read_text(encoding="utf-8"))
EXPRESSIONS = sorted({target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])})
ROWS = (
    "requests, errors, serves since, policy mix, reward, expected against, calibration, coverage, drift, segments, "
    "decisions"
)


def program(name):
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is missing: apt-get install prometheus prometheus-alertmanager")
    return found


@pytest.mark.service
def test_every_rule_fires_and_is_quiet_as_its_cases_say():
    done = subprocess.run(
        [program("promtool"), "test", "rules", "rules.test.yml"], cwd=FILES, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_has_both_cases():
    rules = yaml.safe_load((FILES / "rules.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    cases = {case["name"] for case in yaml.safe_load((FILES / "rules.test.yml").read_text(encoding="utf-8"))["tests"]}
    assert cases == {f"{rule['alert']} {how}" for rule in rules for how in ("fires", "is quiet")}
    assert {rule["labels"]["severity"] for rule in rules} == {"notice", "warning", "critical"}


@pytest.mark.service
def test_the_alertmanager_s_file_is_right():
    done = subprocess.run(
        [program("amtool"), "check-config", FILES / "alertmanager.yml"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_has_its_ten_rows_and_no_panel_overlaps():
    rows = [panel["title"].lower() for panel in DASHBOARD["panels"] if panel["type"] == "row"]
    assert len(rows) == 10
    assert [word for word in ROWS.split(", ") if not any(word in row for row in rows)] == []
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_without_the_programs_it_says_what_to_type(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match=r"apt-get install .*prometheus-alertmanager"):
        watch.commands(tmp_path, {})


def monitor_content():
    """What monitor writes, with one alarm."""
    bounds = {"realised": 0.8, "low": 0.78, "high": 0.82, "expected": 0.81, "rows": 500, "users": 60}
    of = ["version 1", "reference", "users: new", "users: light", "users: heavy", "arm champion"]
    names = ["auc", "rmse", "ndcg", "likes_per_list", "like_share", "calibration_error"]
    check = {"score": 2.0, "severity": "critical", "follows_from": []}
    return {
        "version": "1",
        "until": time.time(),
        "look": 3,
        "numbers": dict.fromkeys(
            ("coverage", "gini", "novelty", "diversity", "rated_unknown_users", "rated_unknown_items"), 0.5
        ),
        "measures": [{"of": one, "name": name, **bounds} for one in of for name in names],
        "findings": [{"name": "rating_level", **check}, {"name": "clock", **check, "score": 0.0, "severity": "none"}],
        "calibration": [[0.1, 0.9], [0.2, 0.8]],
        "about": {"family": "table", "created": 1.7e9, "champion_since": 1.7e9, "decisions": {"promoted": 2}},
    }


class Webhook:
    """Takes what Alertmanager posts."""

    def __init__(self):
        self.alerts = []
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                hook.alerts += [alert["labels"]["alertname"] for alert in body["alerts"]]
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/alerts"


@pytest.fixture(scope="module")
def watched(tmp_path_factory):
    """A server with keys that serves and was judged, and `make watch` over it: Prometheus's address and the webhook."""
    program("prometheus")
    program("prometheus-alertmanager")
    folder = tmp_path_factory.mktemp("watched")
    served = Server(folder / "serving", workers=2, read_keys=("reader",), feedback_keys=("giver",))
    served.point_at(form(folder / "one"))
    (served.folder / "monitor.json").write_text(json.dumps(monitor_content()))
    webhook = Webhook()
    at = f"127.0.0.1:{free_port()}"
    variables = {
        "RECSYS_SERVER": served.address.removeprefix("http://"),
        "RECSYS_ALERTMANAGER": f"127.0.0.1:{free_port()}",
        "PROMETHEUS_ADDRESS": at,
        "ALERT_WEBHOOK": webhook.url,
        "RECSYS_READ_KEYS": "reader,other",
    }
    home = folder / "watching"
    watching = None
    done = threading.Event()

    def ask():
        while not done.wait(0.2):
            served.get("api/recommend/u1", headers={"X-API-Key": "reader"})
            served.get("api/recommend/u1")  # refused: no key
            event = {"UserId": "w", "ItemId": "i1", "Value": 4, "Timestamp": str(time.time())}
            served.post("api/feedback", event, {"X-API-Key": "giver"})

    try:
        served.start()
        asking = threading.Thread(target=ask)
        asking.start()
        quick = "import sys; from server import watch; from pathlib import Path; real = watch.write_files\n" + (
            "def write(folder, environment):\n"
            "    real(folder, environment)\n"
            "    path = Path(folder) / 'prometheus.yml'\n"
            "    path.write_text(path.read_text().replace('15s', '1s'))\n"
            "watch.write_files = write\n"
            "watch.main()\n"
        )
        watching = subprocess.Popen(
            [sys.executable, "-c", quick, str(home)], env={**os.environ, **variables}, cwd=FILES.parent.parent
        )
        yield f"http://{at}", webhook, home
    finally:
        done.set()
        if watching is not None:
            watching.send_signal(signal.SIGTERM)
            assert watching.wait() == 0
        served.stop()
        webhook.server.shutdown()


def query(address, expression):
    text = expression.replace("$__rate_interval", "1m")
    answer = requests.get(f"{address}/api/v1/query", params={"query": text}, timeout=120).json()
    assert answer["status"] == "success", (expression, answer)
    return answer["data"]["result"]


@pytest.mark.service
def test_every_expression_of_the_dashboard_finds_figures(watched):
    address, _, _ = watched

    def empty():
        try:
            return [one for one in EXPRESSIONS if not query(address, one)]
        except requests.RequestException:
            return EXPRESSIONS

    assert len(EXPRESSIONS) > 30
    wait(lambda: not empty(), lambda: f"figures for {empty()}")
    for expression in EXPRESSIONS:
        values = [float(one["value"][1]) for one in query(address, expression)]
        assert any(value == value for value in values), expression  # not all are NaN


@pytest.mark.service
def test_an_alarm_of_monitor_reaches_the_webhook(watched):
    _, webhook, home = watched
    wait(lambda: "RecsysDriftCritical" in webhook.alerts, "the alarm")
    assert re.search("credentials_file: key", (home / "prometheus.yml").read_text())
    assert (home / "key").read_text() == "reader"
