"""Prometheus and Alertmanager as plain processes over a server of ours, on 127.0.0.1: `make watch`.

Both come from Debian's packages prometheus and prometheus-alertmanager. Their data lies in `watching/` beside you.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

FILES = Path(__file__).resolve().parent.parent / "deploy" / "monitoring"
SERVER, ALERTS, PROMETHEUS, WEBHOOK = (
    "127.0.0.1:8000",
    "127.0.0.1:9093",
    "127.0.0.1:9090",
    "http://127.0.0.1:9099/alerts",
)
_POLL_SECONDS = 0.2


def write_files(folder: Path, environment: Mapping[str, str]) -> None:
    """The configuration with the addresses and the key of the environment, in a folder that only its owner reads."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    prometheus = (FILES / "prometheus.yml").read_text(encoding="utf-8")
    for name, default in (("RECSYS_SERVER", SERVER), ("RECSYS_ALERTMANAGER", ALERTS)):
        prometheus = prometheus.replace(default, environment.get(name) or default)
    (folder / "prometheus.yml").write_text(prometheus, encoding="utf-8")
    alerts = (FILES / "alertmanager.yml").read_text(encoding="utf-8")
    alerts = alerts.replace(WEBHOOK, environment.get("ALERT_WEBHOOK") or WEBHOOK)
    (folder / "alertmanager.yml").write_text(alerts, encoding="utf-8")
    shutil.copyfile(FILES / "rules.yml", folder / "rules.yml")
    key = environment.get("RECSYS_READ_KEYS", "").split(",")[0].strip()
    (folder / "key").write_text(key, encoding="utf-8")


def commands(folder: Path, environment: Mapping[str, str]) -> list[list[str]]:
    """What starts the two; exits with one sentence where one is missing."""
    prometheus = shutil.which("prometheus")
    alertmanager = shutil.which("prometheus-alertmanager") or shutil.which("alertmanager")
    if not prometheus or not alertmanager:
        missing = "prometheus" if not prometheus else "prometheus-alertmanager"
        sys.exit(
            f"error: {missing} is not on PATH; type: apt-get install --no-install-recommends prometheus "
            "prometheus-alertmanager"
        )
    return [
        [
            prometheus,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'prometheus'}",
            f"--web.listen-address={environment.get('PROMETHEUS_ADDRESS') or PROMETHEUS}",
        ],
        [
            alertmanager,
            f"--config.file={folder / 'alertmanager.yml'}",
            f"--storage.path={folder / 'alertmanager'}",
            f"--web.listen-address={environment.get('RECSYS_ALERTMANAGER') or ALERTS}",
            "--cluster.listen-address=",  # one alone
        ],
    ]


def main() -> None:
    """Run both until told to stop, or until one ends."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "watching").absolute()
    started = commands(folder, os.environ)
    write_files(folder, os.environ)
    stopped: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: stopped.append(number))
    processes = []
    for command in started:
        with (folder / f"{Path(command[0]).name}.log").open("ab") as log:
            processes.append(subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True))
    named = (("PROMETHEUS_ADDRESS", PROMETHEUS), ("RECSYS_ALERTMANAGER", ALERTS))
    at = [os.environ.get(name) or default for name, default in named]
    print(f"Prometheus on http://{at[0]}, Alertmanager on http://{at[1]}; logs in {folder}", flush=True)
    while not stopped and all(process.poll() is None for process in processes):
        time.sleep(_POLL_SECONDS)
    failed = [process.args[0] for process in processes if process.poll() is not None]  # type: ignore[index]
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait()
    if failed and not stopped:
        sys.exit(f"error: {failed[0]!r} ended; its log is in {folder}")


if __name__ == "__main__":
    main()
