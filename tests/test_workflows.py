"""The workflows of GitHub Actions and the schedules in deploy/retraining: valid, and calling what there is."""

import configparser
import os
import re
import shlex
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from steps.support.entrypoint import parse

PROJECT = Path(__file__).resolve().parent.parent
WORKFLOWS = sorted((PROJECT / ".github" / "workflows").glob("*.yml"))
SCHEDULES = PROJECT / "deploy" / "retraining"


def workflow(name: str) -> dict:
    # YAML 1.1 takes the key `on` for a truth.
    return yaml.load((PROJECT / ".github" / "workflows" / f"{name}.yml").read_text(), yaml.BaseLoader)


@pytest.mark.process
def test_the_workflows_are_valid_by_github_s_schema(tmp_path):
    wrong = tmp_path / "wrong.yml"
    wrong.write_text(WORKFLOWS[0].read_text().replace("runs-on", "runs-in"))
    for path, status in [*((path, 0) for path in WORKFLOWS), (wrong, 1)]:
        command = ["check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stdout


def steps_of(name: str) -> list[dict]:
    return [step for job in workflow(name)["jobs"].values() for step in job["steps"]]


def mlflow_command(line: str) -> tuple[str, list[str]]:
    words = shlex.split(line)
    assert words[words.index("run") + 1] == "."
    step = words[words.index("-e") + 1]
    return step, [f"--{value}" for flag, value in pairwise(words) if flag == "-P"]


def test_every_push_runs_what_people_run():
    assert {"push", "pull_request"} <= set(workflow("tests")["on"])
    commands = [step["run"] for step in steps_of("tests") if "run" in step]
    assert ".ci/run" in commands
    assert os.access(PROJECT / ".ci" / "run", os.X_OK)


def test_the_schedule_retrains_by_the_entry_point():
    found = workflow("retrain")
    assert found["concurrency"]["cancel-in-progress"] == "false"
    (cron,) = (entry["cron"] for entry in found["on"]["schedule"])
    assert re.fullmatch(r"\d+ \d+ \* \* \*", cron)
    (line,) = (step["run"] for step in steps_of("retrain") if "mlflow run" in step.get("run", ""))
    step, arguments = mlflow_command(line.replace("$FORCE", "false"))
    assert step == "retrain"
    parse("retrain", arguments)


def test_secrets_come_by_the_environment_and_never_by_a_command():
    for path in WORKFLOWS:
        for step in steps_of(path.stem):
            assert "secrets." not in step.get("run", "")
            assert "${{" not in step.get("run", ""), "what others write must not become part of a command"


def test_kubernetes_s_schedule_lets_one_run_at_a_time_and_calls_the_entry_point():
    job = yaml.safe_load((SCHEDULES / "cronjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "CronJob")
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    step, arguments = mlflow_command(shlex.join(["mlflow", "run", ".", *container["args"]]))
    assert step == "retrain"
    parse("retrain", arguments)
    compose = yaml.safe_load((PROJECT / "docker-compose.yml").read_text())
    assert container["image"] == compose["services"]["pipeline"]["image"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def test_systemd_s_timer_starts_the_service_that_calls_the_entry_point():
    def unit(name: str) -> configparser.ConfigParser:
        parser = configparser.ConfigParser(interpolation=None)
        parser.optionxform = str
        parser.read(SCHEDULES / name)
        return parser

    service, timer = unit("recsys-retrain.service"), unit("recsys-retrain.timer")
    assert service["Service"]["Type"] == "oneshot"
    step, arguments = mlflow_command(service["Service"]["ExecStart"])
    assert step == "retrain"
    parse("retrain", arguments)
    assert "OnCalendar" in timer["Timer"]
