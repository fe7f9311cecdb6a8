"""Training in several processes, as a user starts, stops and goes on with it."""

import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from recsys.errors import InputError
from steps.support.entrypoint import parse
from tests.support.pipeline import PROJECT, grid, step_command, write_csv
from tests.support.waiting import wait

SITE = Path(__file__).resolve().parents[1] / "support" / "site"  # makes the family `counting` known


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


@pytest.mark.e2e
def test_a_training_that_is_told_to_stop_goes_on_in_its_run_with_other_processes(store):
    write_csv(store.home / "my.csv", grid())

    def command(**parameters):
        return step_command(
            "train",
            ratings="my.csv",
            folder=store.home,
            family="counting",
            resume="auto",
            pause=0.2,
            checkpoint_minutes=0,
            **parameters,
        )

    options = {
        "cwd": PROJECT,
        "env": store.environment(PYTHONPATH=str(SITE) + os.pathsep + str(PROJECT / "src")),
        "stdin": subprocess.DEVNULL,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "text": True,
    }
    with subprocess.Popen(command(processes=2), **options) as process:

        def has_checkpoint() -> bool:
            assert process.poll() is None, process.stdout.read()
            return bool(list(store.data.glob("jobs/*/fit-1/checkpoints/[0-9]*")))

        wait(has_checkpoint, "a checkpoint")
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) == 3  # PyTorch's agent and two ranks
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate()
    assert process.returncode == 143, said
    assert last_line(said) == "train: stopped by SIGTERM"
    assert "the same line with -P resume=auto goes on from it" in said
    assert "Traceback" not in said
    assert not [left for left in family if left.is_running()]
    stopped = store.run_named("train counting")
    assert stopped.info.status == "KILLED"
    assert not store.client.search_registered_models()

    done = subprocess.run(command(processes=1), **options, check=False)
    assert done.returncode == 0, done.stdout
    assert f"goes on with the interrupted training of run {stopped.info.run_id}" in done.stdout
    assert "goes on from checkpoint" in done.stdout
    (version,) = store.client.search_model_versions("name = 'recsys'")
    assert version.run_id == stopped.info.run_id
    whole = store.client.get_run(stopped.info.run_id)
    assert whole.info.status == "FINISHED"
    assert whole.data.params["processes"] == "2"
    steps = store.client.get_metric_history(whole.info.run_id, "epoch_train_rmse")
    assert [metric.step for metric in steps] == [1, 2, 3, 4]  # none left out, none twice
    assert whole.data.metrics["checkpoints"] >= 8
    assert whole.data.metrics["restarts"] == 0
    assert {"rank_0_rows_per_second", "bytes_exchanged"} <= whole.data.metrics.keys()
    (other,) = [run for run in store.runs() if run.data.tags.get("continued_run") == whole.info.run_id]
    assert other.info.status == "FINISHED"
    assert whole.data.tags["continued_by"] == other.info.run_id
    assert not [path for path in (store.data / "jobs").iterdir() if path.is_dir()]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"processes": 0}, "parameter 'processes': expected greater than or equal to 1, got '0'"),
        ({"nodes": 2}, "parameter 'rendezvous': with nodes=2 a place to meet is needed, got 'auto'; pass the same"),
        ({"nodes": 2, "rendezvous": "trainer"}, "parameter 'rendezvous': host:port is needed, with a port from 1 to"),
        ({"nodes": 2, "rendezvous": "trainer:70000"}, "with a port from 1 to 65535, got 'trainer:70000'"),
        ({"rendezvous": "http://trainer:80"}, "parameter 'rendezvous': host:port is needed"),
        ({"rank_timeout": 0}, "parameter 'rank_timeout': expected greater than 0, got '0'"),
        ({"checkpoint_minutes": -1}, "parameter 'checkpoint_minutes': "),
        ({"restarts": -1}, "parameter 'restarts': "),
        ({"sharding": "column"}, "parameter 'sharding': "),
        ({"resume": "yes"}, "parameter 'resume': "),
        (
            {"family": "bias", "processes": 2},
            "parameter 'processes': family bias trains in one process only, got processes=2; leave it out, or "
            "pass one of the families that can: ",
        ),
        (
            {"family": "random_forest", "resume": "auto"},
            "parameter 'resume': family random_forest trains in one process",
        ),
        ({"family": "bias", "sharding": "row"}, "parameter 'sharding': family bias trains in one process only"),
    ],
)
def test_what_cannot_be_started_is_refused_before_anything_is(parameters, expected):
    with pytest.raises(InputError) as caught:
        parse(
            "train", [f"--{name}={value}" for name, value in {"family": "matrix_factorization", **parameters}.items()]
        )
    assert expected in str(caught.value)


def test_more_processes_than_rows(store, step, capsys):
    write_csv(store.home / "my.csv", grid())
    with pytest.raises(SystemExit):
        step("train", ratings="my.csv", family="matrix_factorization", processes=4000)
    assert "parameter 'processes': at most one for each of the " in capsys.readouterr().err
    assert store.run_named("train matrix_factorization").info.status == "FAILED"
    assert not (store.data / "jobs").exists()


def test_what_is_refused_once_processes_have_been_started_leaves_none(store):
    options = {"cwd": PROJECT, "env": store.environment(TRAINING=str(store.home)), "stderr": subprocess.PIPE}
    command = step_command("train", ratings="none.csv", folder=store.home, family="matrix_factorization", processes=2)
    done = subprocess.run(command, **options, text=True, check=False)
    assert done.returncode == 1
    assert "none.csv" in last_line(done.stderr)
    assert not [left for left in psutil.process_iter(["environ"]) if has(left.info["environ"], store.home)]


def has(environment: dict[str, str] | None, home: Path) -> bool:
    return bool(environment) and environment.get("TRAINING") == str(home)


@pytest.mark.e2e
def test_two_processes_with_split_tables_train_what_one_trains(store, step):
    # By turns of 7 the newest ratings are of all users and items.
    rows = [(*row, 7 * number % 600) for number, row in enumerate(grid(30, 20))]
    write_csv(store.home / "my.csv", rows, header="user_id,item_id,rating,timestamp")
    found = []
    for parameters in ({}, {"processes": 2}, {"processes": 2, "sharding": "row"}):
        step("train", ratings="my.csv", family="matrix_factorization", epochs=4, embedding_size=4, **parameters)
        run = store.run_named("train matrix_factorization")
        found.append([run.data.metrics[f"validation_{name}"] for name in ("rmse", "mae", "auc")])
        assert {"forward_rmse", "forward_warm_auc"} <= set(run.data.metrics)
    assert found[1] == pytest.approx(found[2], abs=1e-4)
    assert found[0] == pytest.approx(found[1], abs=0.02)  # one process takes a step a rating, several one a batch
    assert run.data.params["sharding"] == "row"
    assert run.data.metrics["rank_1_rows_per_second"] > 0
    assert len(store.client.search_model_versions("name = 'recsys'")) == 3
