"""What the process of a step knows of its ranks, and where it keeps their state; no rank is started."""

import json
import socket
import threading
import time
from contextlib import suppress

import numpy as np
import pytest

from recsys.errors import DivergedError, InputError
from recsys.models import bias
from recsys.models.base.family import FitOptions
from recsys.testing.datasets import prepared
from recsys.training import trainer
from recsys.training.launch import rendezvous
from recsys.training.launch.heartbeat import EventReader, Heartbeat, RankStatus, append_event, find_hung, read_statuses
from recsys.training.launch.job import JobSpec, read_fitted, read_job, read_task, write_fitted, write_job
from recsys.training.launch.settings import Processes, split_address
from recsys.training.launch.workspace import open_workspace

NOW = 1000.0


def life(rank, *, at=NOW, since=NOW, step=7, waiting=False, **more):
    return RankStatus(rank, 2, 0, 100 + rank, at=at, since=since, step=step, waiting=waiting, begun=1, **more)


@pytest.mark.parametrize(
    ("lives", "sentence"),
    [
        ([life(0, since=900, step=8, waiting=True), life(1, since=900)], "at step 7, others wait at 8"),
        ([life(0, since=999, step=8, waiting=True), life(1, at=900)], "at step 7, others wait at 8"),
        ([life(0), life(1, at=900)], "at step 7"),
    ],
    ids=["computes while another waits", "silent", "silent and nobody waits"],
)
def test_the_rank_that_hangs_is_named(lives, sentence):
    hung, said = find_hung(lives, 30, NOW)
    assert hung.rank == 1
    assert said == f"rank 1 of 2 did not answer for 30 s: {sentence}"


@pytest.mark.parametrize(
    "lives",
    [
        [life(0, since=900), life(1, since=900)],
        [life(0, since=900, waiting=True), life(1, since=990)],
        [life(0, since=980, waiting=True), life(1, since=900)],
        [life(0, since=900, waiting=True), life(1, since=900, waiting=True)],
        [life(0), life(1, at=900, ended="done")],
        [life(0), RankStatus(1, 2, 0, 101, at=900, since=900)],
    ],
    ids=["both compute", "slow but at it", "not waited for long", "wait for the network", "ended", "still starting"],
)
def test_a_rank_that_takes_its_time_does_not_hang(lives):
    assert find_hung(lives, 30, NOW) is None


def test_signs_are_up_to_date_and_of_the_latest_attempt(tmp_path):
    Heartbeat(tmp_path, RankStatus(0, 2, 0, 1)).beat(99, True)
    heartbeat = Heartbeat(tmp_path, RankStatus(0, 2, 1, 2))
    heartbeat.beat(5, True)
    (found,) = read_statuses(tmp_path)
    assert (found.pid, found.step, found.waiting, found.ended) == (2, 5, True, "")
    heartbeat.end("done")
    assert read_statuses(tmp_path)[0].ended == "done"


def test_setting_the_time_of_day_makes_no_rank_hang(tmp_path, monkeypatch):
    Heartbeat(tmp_path, RankStatus(0, 2, 0, 1)).beat(7, True)
    monkeypatch.setattr(time, "time", lambda: 0.0)
    Heartbeat(tmp_path, RankStatus(1, 2, 0, 2)).beat(7, False)
    first, second = read_statuses(tmp_path)
    assert first.since <= min(second.at, second.since) <= time.monotonic()


def test_a_line_that_a_crash_cut_short_is_passed_over(tmp_path):
    path = tmp_path / "progress.jsonl"
    tail = EventReader(path)
    assert tail.read() == []
    append_event(path, "start", attempt=0)
    with path.open("a") as file:
        file.write('{"kind": "report", "epo')
    assert [event["kind"] for event in tail.read()] == ["start"]
    append_event(path, "report", epoch=1)
    assert [event.get("epoch") for event in tail.read()] == [1]
    assert tail.read() == []


@pytest.mark.parametrize(
    ("text", "address"),
    [("trainer-1:29400", ("trainer-1", 29400)), ("10.0.0.7:1", ("10.0.0.7", 1)), ("[fe80::1]:80", ("fe80::1", 80))],
)
def test_an_address(text, address):
    assert split_address(text) == address


def test_the_first_at_a_local_port_is_the_host_and_the_next_joins(free_port):
    said = []
    first = rendezvous.find_rendezvous(f"127.0.0.1:{free_port}", said.append)
    assert (first.is_host, first.address) == (True, "127.0.0.1")
    assert said == [f"waiting at 127.0.0.1:{free_port} for the other machines, for up to 300 s"]
    with socket.create_server(("127.0.0.1", free_port)):
        assert not rendezvous.find_rendezvous(f"127.0.0.1:{free_port}", said.append).is_host


def test_a_host_that_is_late_is_waited_for_and_one_that_is_absent_is_told(free_port, monkeypatch):
    monkeypatch.setattr(rendezvous, "_is_here", lambda address: False)
    monkeypatch.setattr(rendezvous, "HOST_WAIT_SECONDS", 1.0)
    with pytest.raises(InputError, match=rf"127.0.0.1:{free_port} does not answer after 1 s .*: start|; start"):
        rendezvous.find_rendezvous(f"127.0.0.1:{free_port}", lambda text: None)
    monkeypatch.setattr(rendezvous, "HOST_WAIT_SECONDS", 60.0)
    late = threading.Timer(0.5, lambda: servers.append(socket.create_server(("127.0.0.1", free_port))))
    servers = []
    late.start()
    assert not rendezvous.find_rendezvous(f"127.0.0.1:{free_port}", lambda text: None).is_host
    servers[0].close()
    with pytest.raises(InputError, match="the name of a host that can be reached is needed, got"):
        rendezvous.find_rendezvous("no-such-host.invalid:29400", lambda text: None)


@pytest.fixture
def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


def keep(place):
    (place.folder / "fit-1" / "checkpoints" / "1").mkdir(parents=True)
    (place.folder / "fit-1" / "rows").mkdir()


def test_a_place_is_kept_where_there_is_something_to_go_on_with(tmp_path):
    said = []

    def place(resume=False, **options):
        return open_workspace(tmp_path, "d", resume=resume, say=said.append, **{"several_machines": False, **options})

    with place() as first:
        first.record_run("r1")
        keep(first)
    assert not first.folder.exists()  # it came to its end
    for error in (KeyboardInterrupt, InputError, OSError):
        with suppress(error), place() as lost:
            lost.record_run("r2")
            raise error
        assert not lost.folder.exists()  # nothing was computed
    with suppress(KeyboardInterrupt), place() as lost:
        lost.record_run("r3")
        keep(lost)
        raise KeyboardInterrupt
    assert not (lost.folder / "fit-1" / "rows").exists()
    assert said == []
    with suppress(DivergedError), place(resume=True) as again:
        assert again.interrupted_run == "r3"
        raise DivergedError
    assert not again.folder.exists()  # going on would diverge again
    with place(resume=True) as anew:
        assert anew.interrupted_run == ""
        keep(anew)
        with place() as beside:
            assert beside.folder != anew.folder
            keep(beside)
        assert not beside.folder.exists()
        with pytest.raises(InputError, match="is under way in another process"), place(resume=True):
            pass
        with place(resume=True, several_machines=True) as machine:
            assert machine.folder != anew.folder
        assert anew.folder.exists()
    assert [text.split(":")[0] for text in said] == [
        "resume=auto",
        "the same training is under way in another process; this one begins beside it",
    ]
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_training_is_forgotten_where_the_next_does_not_resume(tmp_path):
    said = []
    for resume in (False, False):
        with (
            suppress(KeyboardInterrupt),
            open_workspace(tmp_path, "d", resume=resume, several_machines=False, say=said.append) as place,
        ):
            place.record_run("r1")
            keep(place)  # fails where what was there is still there
            raise KeyboardInterrupt
    assert said == [
        "an interrupted training of the same is forgotten: this one begins anew (resume=auto goes on with it)"
    ]


def test_a_job_tells_the_ranks_what_to_learn(tmp_path):
    rows = [(f"u{u}", f"i{i}", 1 + (3 * u + i) % 5, 10 * u + i) for u in range(12) for i in range(12)]
    dataset = prepared(tmp_path, rows)
    plan = JobSpec("matrix_factorization", {"epochs": 3}, 7, dataset.digest, True, "none")
    tasks = list(trainer.fit_tasks(dataset, True))
    knowledges = write_job(tmp_path / "job", plan, tasks, Processes(checkpoint_minutes=2), "r1")
    job = read_job(tmp_path / "job")
    assert (job.family, job.config.epochs, job.seed, job.tasks, job.run_id) == (plan.family, 3, 7, 2, "r1")
    assert job.checkpoint_seconds == 120
    for number, (task, knowledge) in enumerate(zip(tasks, knowledges, strict=True)):
        found = read_task(job, number)
        assert isinstance(found.rows.users, np.memmap)
        for part in ("rows", "validation"):
            ours, theirs = getattr(task, part), getattr(found, part)
            assert (ours is None) == (theirs is None) == (part == "validation" and number == 1)
            for name in ("users", "items", "ratings", "timestamps") if ours else ():
                np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        assert len(found.knowledge.user_ids) == len(knowledge.user_ids)
        assert found.knowledge.scale == knowledge.scale
        assert found.knowledge.calibration == knowledge.calibration
        np.testing.assert_array_equal(found.knowledge.biases.item, knowledge.biases.item)
        last = read_task(job, 1).knowledge  # where the rows of a warm start are looked for
        np.testing.assert_array_equal(
            last.user_codes(found.knowledge.user_ids), knowledges[1].user_codes(knowledge.user_ids)
        )
        np.testing.assert_array_equal(
            last.item_codes(found.knowledge.item_ids), knowledges[1].item_codes(knowledge.item_ids)
        )


def test_what_a_rank_has_fitted_is_read_with_the_biases_that_it_answers_by(tmp_path):
    dataset = prepared(tmp_path, [(f"u{u}", f"i{i}", 1 + (3 * u + i) % 5) for u in range(12) for i in range(12)])
    plan = JobSpec("bias", {"damping": 40.0}, 7, dataset.digest, False, "none")
    (knowledge,) = write_job(tmp_path / "job", plan, trainer.fit_tasks(dataset, False), Processes(), "r1")
    job = read_job(tmp_path / "job")
    task = read_task(job, 0)
    fitted = bias.fit(task.knowledge, task.rows, job.config, FitOptions(7, task.validation))
    write_fitted(job, 0, fitted)
    found = read_fitted(job.task_folder(0) / "fitted", "bias", knowledge)
    pairs = task.rows.users, task.rows.items
    assert found.score(*pairs).rating.tolist() == fitted.score(*pairs).rating.tolist()
    assert found.score(*pairs).like_probability.tolist() == fitted.score(*pairs).like_probability.tolist()
    assert np.abs(found.knowledge.biases.item).max() < np.abs(knowledge.biases.item).max()
    np.testing.assert_array_equal(found.knowledge.user_ids, dataset.user_ids)


def test_a_plan_s_digest_names_all_that_decides_the_result_and_not_the_processes(tmp_path):
    dataset = prepared(tmp_path, [(f"u{u}", f"i{i}", 1 + (3 * u + i) % 5) for u in range(9) for i in range(9)])
    plan = JobSpec("matrix_factorization", {"epochs": 3}, 7, dataset.digest, True, "none")
    others = [
        JobSpec("bayesian_mf", {"epochs": 3}, 7, dataset.digest, True, "none"),
        JobSpec("matrix_factorization", {"epochs": 4}, 7, dataset.digest, True, "none"),
        JobSpec("matrix_factorization", {"epochs": 3}, 8, dataset.digest, True, "none"),
        JobSpec("matrix_factorization", {"epochs": 3}, 7, "other", True, "none"),
        JobSpec("matrix_factorization", {"epochs": 3}, 7, dataset.digest, False, "none"),
        JobSpec("matrix_factorization", {"epochs": 3}, 7, dataset.digest, True, "row"),
        JobSpec("matrix_factorization", {"epochs": 3}, 7, dataset.digest, True, "none", forward=True),
    ]
    assert len({plan.digest, *(other.digest for other in others)}) == 8

    def rows_digest(folder, settings):
        write_job(folder, plan, trainer.fit_tasks(dataset, True), settings, "r")
        return json.loads((folder / "job.json").read_text())["rows_digest"]

    assert rows_digest(tmp_path / "a", Processes()) == rows_digest(tmp_path / "b", Processes(processes=2))
