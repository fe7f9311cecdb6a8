"""What the demonstration claims, each held against the record: of MLflow, of the registry, or of the server."""

from collections.abc import Callable
from dataclasses import dataclass

from demo.site import MODEL
from demo.story import BETTER, CHAMPION, MIXED_UP, SLOW, Story


@dataclass(frozen=True)
class Claim:
    """A sentence, and whether the record bears it out."""

    sentence: str
    evidence: str
    holds: bool


def check(story: Story) -> list[Claim]:
    """All claims."""
    return [Claim(sentence, *find(story)) for sentence, find in _CLAIMS]


def _answered(story: Story) -> tuple[str, bool]:
    seen = story.people.seen
    return f"{seen.lists:,} lists, {seen.failed} failures", seen.lists > 0 and seen.failed == 0


def _kept(story: Story) -> tuple[str, bool]:
    ((events,),) = story.site.record("select count(*) from feedback")
    return f"{events:,} of {story.people.seen.given:,} acknowledged events are in the database", (
        events == story.people.seen.given
    )


def _recorded(story: Story) -> tuple[str, bool]:
    lists = len(story.site.lists())
    return f"{lists:,} of {story.people.seen.lists:,} lists are on record", lists == story.people.seen.lists


def _first(story: Story) -> tuple[str, bool]:
    _, version = story.site.lists()[0]
    return f"version {version}", version == str(CHAMPION)


def _sticky(story: Story) -> tuple[str, bool]:
    rows = story.site.record(
        "select trial, user, count(distinct arm) from served where trial is not null group by trial, user"
    )
    torn = sum(arms > 1 for _, _, arms in rows)
    return f"{len(rows):,} users of {len({row[0] for row in rows})} trials, {torn} saw two arms", bool(
        rows
    ) and not torn


def _trial(number: int, outcome: str, reason: str = "") -> Callable[[Story], tuple[str, bool]]:
    def find(story: Story) -> tuple[str, bool]:
        from registry import transitions
        from registry.trials import past_trials

        found = [trial for trial in past_trials(transitions.read_state(MODEL)) if trial.version == number]
        if not found:
            return "there was no trial", False
        return f"{found[0].outcome}: {found[0].why}", found[0].outcome == outcome and reason in (found[0].why or "")

    return find


def _alarmed(story: Story) -> tuple[str, bool]:
    looks = story.facts["monitored"]
    before, after = looks.get("before", ""), looks.get("after", "")
    said = f"before: {before or 'none'}; after: {after or 'none'}"
    return said, "rating_level" in after and "rating_level" not in before


def _retrained(story: Story) -> tuple[str, bool]:
    from recsys.tracking import runs

    found = [tags for _, tags in runs.find_runs({"retrain.model": MODEL})]
    outcome = [(tags.get("retrain.due"), tags.get("retrain.outcome"), tags.get("version")) for tags in found]
    due, came, version = outcome[-1] if outcome else (None, None, None)
    after = str(story.facts.get("champion_after"))
    return f"due: {due}; outcome: {came}; version {version}", (due, came, version) == ("drift", "promoted", after)


def _one_champion(story: Story) -> tuple[str, bool]:
    from registry import transitions

    state = transitions.read_state(MODEL)
    at_rest = state.is_settled(state.champion) and state.trial is None
    return f"version {state.champion}, {state.production} in Production, {state.trial or 'nothing'} on trial", (
        at_rest and state.champion == story.facts.get("champion_after")
    )


def _takes_over(story: Story) -> tuple[str, bool]:
    _, version = story.site.lists()[-1]
    return f"version {version}", version == str(story.facts.get("champion_after"))


_CLAIMS: tuple[tuple[str, Callable[[Story], tuple[str, bool]]], ...] = (
    ("the first lists came from the version trained on the older half", _first),
    ("every request was answered", _answered),
    ("every acknowledged event was kept, once", _kept),
    ("every list is on record, once", _recorded),
    ("nobody saw two arms of a trial", _sticky),
    ("the better version won its trial and was promoted by the server", _trial(BETTER, "promoted")),
    ("the mixed-up one was rolled back by the server", _trial(MIXED_UP, "rolled_back")),
    ("the slow one was rolled back by the server, for its latency", _trial(SLOW, "rolled_back", "latency")),
    ("drift was alarmed when it was there, and not before", _alarmed),
    ("the champion was retrained because of it, and promoted", _retrained),
    ("users are answered by the retrained version", _takes_over),
    ("one version is in Production, and nothing on trial", _one_champion),
)
