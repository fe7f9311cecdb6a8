"""History: who was in Production when, and why, from the records that promotions and rollbacks leave."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from steps.support.decision_record import UNFINISHED, find_decisions
from steps.support.entrypoint import run_step
from steps.support.parameters import HistoryParameters
from steps.support.runs import name_own_run
from steps.support.trial_record import SAID

if TYPE_CHECKING:
    from registry.transitions import State

_CHANGES = ("promoted", "rolled_back", UNFINISHED)


def history(parameters: HistoryParameters) -> list[dict[str, str]]:
    """Print the versions that were in Production, each with its time and reason; gives their records."""
    from registry import transitions, versions

    name_own_run("history")
    name = parameters.model_name
    state = transitions.read_state(name)
    if not state.versions:
        versions.find_or_raise_version(name)
    records = find_decisions(name)
    changes = effective_changes(records, state.champion)
    print(f"{name}: who was in Production (times are UTC)\n")
    stays = changes and changes[-1]["to"] == str(state.champion)
    ends = [record["at"] for record in changes[1:]] + ["now" if stays else "unknown"]
    for record, until in zip(changes, ends, strict=False):  # no change, and nothing that could end
        print(f"{_time(record['at'])} to {_time(until):<16}  version {record['to']}, by {record['author']}")
        print(f"    {record['decision']}{' (interrupted, and finished by the next)' * _interrupted(record)}")
    _print_present(state, changes)
    of_trials = [record for record in records if record["outcome"] in SAID]
    if of_trials:
        print("\ntrials:\n")
    for record in of_trials:
        print(f"{_time(record['at'])}  {SAID[record['outcome']]}, by {record['author']}: {record['decision']}")
    others = [record for record in records if record not in changes and record not in of_trials]
    if parameters.every and others:
        print("\ndecisions that changed nothing:\n")
        for record in others:
            print(f"{_time(record['at'])}  {record['outcome']}, by {record['author']}: {record['decision']}")
    elif others:
        print(f"\ndecisions that changed nothing: {len(others)}; -P every=true shows them")
    return changes


def effective_changes(records: Sequence[dict[str, str]], champion: int | None) -> list[dict[str, str]]:
    """The records after which another version was in Production, out of all, the oldest first.

    Of promotions at one time to one version the first counts. One whose process died counts if the next decision
    found its version in Production.
    """
    changes: list[dict[str, str]] = []
    current = ""
    for position, record in enumerate(records):
        if record["outcome"] not in _CHANGES or record["to"] == current:
            continue
        if _interrupted(record):
            later = [r["from"] for r in records[position + 1 :] if not _interrupted(r)]
            found = later[0] if later else str(champion)
            if found != record["to"]:
                continue
        changes.append(record)
        current = record["to"]
    return changes


def _interrupted(record: dict[str, str]) -> bool:
    return record["outcome"] == UNFINISHED


def _time(at: str) -> str:
    return at[:16].replace("T", " ")


def _print_present(state: "State", changes: Sequence[dict[str, str]]) -> None:
    if state.champion is None:
        print("no version is in Production")
    elif not changes or changes[-1]["to"] != str(state.champion):
        print(f"note: version {state.champion} is in Production, which no record explains: somebody moved it by hand")
    elif not state.is_settled(state.champion):
        print(f"note: the move to version {state.champion} is half done; run promote, or promote -P repair=true")


if __name__ == "__main__":
    run_step("history", history)
