"""Has PyTorch's agent run the ranks of a training, reads what they report, and explains failures.

The ranks are started and, where one is lost, started again by the agent (agent.py). This process only watches their
folder, kills a rank that hangs, so that the agent starts all of them again, and closes the pipe that they read from
when they are to stop.
"""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from recsys import errors
from recsys.data.interactions import Interactions
from recsys.errors import InputError, JoinedError, RankError
from recsys.models.base.family import Report
from recsys.models.base.recommender import Recommender
from recsys.training.fit_task import FitTask
from recsys.training.launch import rendezvous
from recsys.training.launch.agent_process import AgentProcess
from recsys.training.launch.heartbeat import (
    EventReader,
    RankFailure,
    RankStatus,
    find_hung,
    read_failures,
    read_statuses,
)
from recsys.training.launch.job import JobSpec, read_fitted, write_job
from recsys.training.launch.settings import Processes
from recsys.training.launch.workspace import has_state

_POLL_SECONDS = 0.1
_STOP_SECONDS = 20.0  # for a checkpoint; then the launcher is told, and then all are killed
_END_SECONDS = 5.0
_LATE_SECONDS = 60.0  # in which PyTorch tells itself that nobody came
_LOG_BYTES = 1 << 20


class Launcher:
    """One training in several processes, in `folder`.

    Args:
        environment: of the ranks, less what they do not need.
        agent: where one has been started already.
        run_id: of the run that records it, told to other machines.
        say: called with messages for the user.
        on_ranks: called with the figures of each rank of this machine after every epoch.
    """

    def __init__(
        self,
        folder: Path,
        spec: JobSpec,
        settings: Processes,
        *,
        environment: Mapping[str, str],
        run_id: str,
        say: Callable[[str], None],
        on_ranks: Report | None = None,
        agent: AgentProcess | None = None,
    ) -> None:
        self.folder, self.spec, self.settings = folder, spec, settings
        self.environment, self.run_id, self.say, self.on_ranks = environment, run_id, say, on_ranks
        self.restarts = 0  # in the whole training, interruptions included
        self.checkpoints = 0
        self.resumed = 0  # how often it went on from a checkpoint
        self.sent = 0.0  # bytes, by the ranks of this machine since they were last started
        self.last_epoch = 0
        self._events = EventReader(folder / "progress.jsonl")
        self._report: Report | None = None
        self._reported: set[int] = set()
        self._attempt = 0
        self._rendezvous: rendezvous.Rendezvous | None = None
        self._agent = agent
        self._hung: dict[int, str] = {}  # by attempt
        self._ranks: dict[int, RankStatus] = {}  # by process id
        self._epoch_at = 0.0
        self._rows = 0

    def fit_all(self, tasks: Iterable[FitTask[Interactions]], report: Report | None) -> list[Recommender]:
        """Fit the tasks in the ranks and read what they leave.

        Raises:
            InputError: what a rank refused, as it said it; RankError if the ranks were lost; JoinedError where another
                machine has the result.
        """
        for left in ("errors", "ranks"):
            for path in (self.folder / left).glob("*"):
                path.unlink()
        (self.folder / "joined.json").unlink(missing_ok=True)
        self._report = report
        for event in self._events.read():  # of the interrupted training
            self._handle_event(event, past=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        knowledges = write_job(self.folder, self.spec, tasks, self.settings, self.run_id)
        self._rows = len(knowledges[0].seen)
        failure = self._run()
        if (
            failure
            and self._rendezvous
            and self._rendezvous.is_host
            and not self._ranks
            and not rendezvous.find_rendezvous(self.settings.rendezvous, lambda text: None).is_host
        ):
            failure = self._run()  # another process of this machine opened the port first: this one joins it
        if failure:
            raise failure
        joined = self.folder / "joined.json"
        if joined.exists():
            leader = json.loads(joined.read_text(encoding="utf-8"))
            raise JoinedError(leader["run_id"], leader["host"])
        return [
            read_fitted(self.folder / f"fit-{number}" / "fitted", self.spec.family, knowledge)
            for number, knowledge in enumerate(knowledges, 1)
        ]

    def _run(self) -> Exception | None:
        """Run the ranks to their end; returns the exception to raise if they failed."""
        # What answers at the rendezvous may be anything: then PyTorch waits for its answer for ever.
        limit = time.monotonic() + rendezvous.JOIN_SECONDS + _LATE_SECONDS
        with self._started() as agent:
            while (status := agent.wait(_POLL_SECONDS)) is None:
                self._poll(agent)
                if self._rendezvous and not self._ranks and time.monotonic() > limit:
                    return self._rendezvous_failure()
            self._poll(agent)
        ended = {rank.ended for rank in read_statuses(self.folder / "ranks")}
        return None if not status and ended == {"done"} else self._failure(status, ended)

    def _launch(self) -> tuple[dict[str, Any], str]:
        """The arguments of PyTorch's LaunchConfig, and the network interface to use, "" for any."""
        settings = self.settings
        config: dict[str, Any] = {"rdzv_backend": "c10d", "max_restarts": settings.restarts}
        config |= {"min_nodes": settings.nodes, "max_nodes": settings.nodes, "nproc_per_node": settings.processes}
        if settings.rendezvous == "auto":
            address, interface = "127.0.0.1", rendezvous.interface_of("127.0.0.1")
            config |= {"rdzv_endpoint": "127.0.0.1:0", "run_id": self.spec.digest, "rdzv_configs": {"is_host": True}}
        else:
            met = self._rendezvous = rendezvous.find_rendezvous(settings.rendezvous, self.say)
            address, interface = met.address, met.interface
            known = {"is_host": met.is_host, "join_timeout": rendezvous.JOIN_SECONDS}
            config |= {"rdzv_endpoint": met.endpoint, "run_id": "recsys", "rdzv_configs": known}
        return config | {"local_addr": address}, interface

    @contextmanager
    def _started(self) -> Iterator[AgentProcess]:
        """The agent at work; at the end neither it nor a rank is left."""
        agent, self._agent = self._agent, None
        agent = agent or AgentProcess(self.spec.family, self.settings.processes, self.environment)
        try:
            launch, interface = self._launch()
            own = {"GLOO_SOCKET_IFNAME": interface} if interface else {}
            log = self.folder / "log.txt"
            log.touch()
            agent.begin(self.folder, log, own, launch)
            yield agent
        except KeyboardInterrupt:
            self._stop(agent, _STOP_SECONDS)
            if has_state(self.folder):
                self.say("the last checkpoint is kept: the same line with -P resume=auto goes on from it")
            raise
        finally:
            self._stop(agent, _END_SECONDS)

    def _poll(self, agent: AgentProcess) -> None:
        """Handle new events, failures and ranks that hang; raises what a rank refused."""
        for event in self._events.read():
            self._handle_event(event, past=False)
        statuses = read_statuses(self.folder / "ranks")
        self._ranks |= {status.pid: status for status in statuses}
        self.sent = sum((status.sent for status in statuses), 0.0)
        for failure in self._read_failures():
            if failure.refused:
                self._stop(agent, _END_SECONDS)
                kind = getattr(errors, failure.kind, InputError)
                raise kind(failure.message) if issubclass(kind, InputError) else InputError(failure.message)
        hung = find_hung(
            [status for status in statuses if _is_alive(status.pid)], self.settings.rank_timeout, time.monotonic()
        )
        if hung and hung[0].attempt not in self._hung:
            status, sentence = hung
            self._hung[status.attempt] = sentence
            if status.attempt < self.settings.restarts:
                self.say(f"{sentence}; it is ended, and all are started again")
            agent.kill_rank(status.pid)

    def _handle_event(self, event: dict[str, Any], *, past: bool) -> None:
        kind = event["kind"]
        if kind == "start":
            if event["attempt"] > 0:
                self.restarts += 1
            if event["attempt"] > 0 and not past:
                cause = self._cause(range(self._attempt, event["attempt"]))
                self.say(f"restart {event['attempt']} of {self.settings.restarts}: {cause}")
            self._attempt, self._epoch_at = event["attempt"], event["at"]
        elif kind == "checkpoint":
            self.checkpoints += 1
        elif kind == "resumed":
            self.resumed += 1
            if not past:
                which = ("", " of the second fit", " of the third fit")[event["task"]]
                self.say(f"goes on from checkpoint {event['number']}{which}")
        elif kind == "note" and not past:
            self.say(f"note: {event['text']}")
        elif kind == "report" and event["epoch"] not in self._reported:
            self._reported.add(event["epoch"])
            self.last_epoch = event["epoch"]
            if self._report:
                self._report(event["epoch"], event["metrics"])
            if not past:
                self._report_ranks(event)

    def _report_ranks(self, event: dict[str, Any]) -> None:
        """The figures of each rank of this machine in this epoch: all share its rows evenly."""
        seconds = event["metrics"].get("seconds") or event["at"] - self._epoch_at
        self._epoch_at = event["at"]
        values = {}
        for status in read_statuses(self.folder / "ranks"):
            if seconds > 0:
                share = (self._rows - status.rank + status.size - 1) // status.size
                values[f"rank_{status.rank}_rows_per_second"] = share / seconds
        if self.on_ranks:
            self.on_ranks(event["epoch"], values | self.figures())

    def log(self) -> str:
        """The end of what the agent and the ranks printed, tracebacks among it."""
        data = (self.folder / "log.txt").read_bytes()
        return data[-_LOG_BYTES:].decode("utf-8", "replace")

    def figures(self) -> dict[str, float]:
        """What the training cost beyond computing."""
        return {"restarts": self.restarts, "checkpoints": self.checkpoints, "bytes_exchanged": self.sent}

    def _read_failures(self) -> list[RankFailure]:
        return read_failures(self.folder / "errors")

    def _cause(self, attempts: Iterable[int]) -> str:
        """Why these attempts ended, as far as it is known; the first cause, not what followed of it."""
        attempts = list(attempts)
        for attempt in attempts:
            if attempt in self._hung:
                return self._hung[attempt]
        failures = [failure for failure in self._read_failures() if failure.attempt in attempts]
        own = [failure for failure in failures if not failure.lost]
        if own:
            return f"rank {own[0].rank} of {own[0].size}: {own[0].kind}: {own[0].message}"
        log = self.log()
        for code, pid in reversed(re.findall(r"failed \(exitcode: (-\d+)\) local_rank: \d+ \(pid: (\d+)\)", log)):
            status = self._ranks.get(int(pid))
            if status and status.attempt in attempts:
                return f"rank {status.rank} of {status.size} was ended by {signal.Signals(-int(code)).name}"
        if failures:
            reason = re.sub(r"^\[[^\]]*\]\s*", "", failures[0].message.splitlines()[0]).split(". ")[0]
            return f"rank {failures[0].rank} of {failures[0].size} lost the others ({reason})"
        return "a rank was lost"

    def _failure(self, status: int, ended: set[str]) -> Exception:
        remedy = (
            "; the same line with -P resume=auto goes on from the last checkpoint" if has_state(self.folder) else ""
        )
        if status == 0 and "stopped" in ended:
            return RankError(f"the training was told to stop on another machine{remedy}")
        log = self.log()
        if status < 0:
            return RankError(f"PyTorch's agent was ended by {signal.Signals(-status).name}{remedy}")
        if not self._ranks and "RendezvousTimeoutError" in log:
            return self._rendezvous_failure()
        if not self._ranks or ("Rendezvous" in log and not self._read_failures()):
            if self._rendezvous and "connection to the C10d store" in log:
                return RankError(
                    f"parameter 'rendezvous': what answers at {self.settings.rendezvous} is not the other machines' "
                    f"training, or it has ended; start the same line there first{remedy}"
                )
            lines = [line for line in log.splitlines() if line.strip()]
            return RankError(f"the processes could not be started: {(lines or ['no reason was given'])[-1]}{remedy}")
        cause = self._cause(range(self._attempt, self.settings.restarts + 1))
        tries = f", after {self._attempt} restart{'s' * (self._attempt > 1)}" if self._attempt else ""
        if self._rendezvous and "Rendezvous" in log:
            tries += f"; not all met again at {self.settings.rendezvous}"
        return RankError(f"{cause}{tries}{remedy}")

    def _rendezvous_failure(self) -> RankError:
        return RankError(
            f"parameter 'nodes': {self.settings.nodes} machines are needed, but not all met at "
            f"{self.settings.rendezvous} within {rendezvous.JOIN_SECONDS} s; type the same line on each, and see that "
            "nothing else uses that port"
        )

    def _stop(self, agent: AgentProcess, patience: float) -> None:
        """Stop the ranks, first by request, then by force; none is left."""
        # Where no rank is there yet, there is nobody to be asked.
        agent.stop(patience if read_statuses(self.folder / "ranks") else 0)
        for status in read_statuses(self.folder / "ranks"):
            self._ranks[status.pid] = status
        for pid in self._ranks:
            agent.kill_rank(pid)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
