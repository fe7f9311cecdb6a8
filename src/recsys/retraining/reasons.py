"""Why a champion is trained anew, or why not: an alarm, what is new, its age."""

from dataclasses import dataclass

from pydantic import Field

from recsys.settings import OptionalFloat, OptionalSeconds, Seconds, Settings

_DAY = 86_400.0


class Rules(Settings):
    """When to train again."""

    drift: bool = Field(True, description="retrain where the newest look of monitor at the champion found harm")
    new_ratings: OptionalFloat = Field(
        0.05,
        gt=0,
        description="ratings and feedback not learnt from yet, from which on to retrain: a number, or below 1 a share "
        "of what the champion learnt from; none: never for that",
    )
    max_age: OptionalSeconds = Field("30d", description="age of the champion from which on to retrain, or none")  # type: ignore[assignment]
    pause: Seconds = Field(  # type: ignore[assignment]
        "1d", description="least time after a retraining that found nothing better before an alarm counts again"
    )
    force: bool = Field(False, description="retrain whatever is found")


@dataclass(frozen=True)
class Situation:
    """How things stand with a champion. Moments are seconds since 1970."""

    now: float
    trained: float  # when the champion was
    learnt: int  # ratings that it learnt from or was tested on
    new: int  # ratings and feedback that neither it nor a retraining from it has had
    alarms: tuple[str, ...] = ()  # that the newest look at it found, less those that harm nothing
    looked: float | None = None  # when that look's window ended
    tried: float | None = None  # when a retraining from it ended last


@dataclass(frozen=True)
class Reason:
    """One rule, whether it asks for a retraining, and why in a sentence."""

    name: str
    holds: bool
    sentence: str


def weigh(situation: Situation, rules: Rules) -> list[Reason]:
    """All rules, each with what it says; a retraining is due where one holds."""
    found = [_drift(situation, rules), _new(situation, rules), _age(situation, rules)]
    if rules.force:
        found.append(Reason("force", True, "it was asked for"))
    return found


def _drift(situation: Situation, rules: Rules) -> Reason:
    def no(why: str) -> Reason:
        return Reason("drift", False, why)

    if not rules.drift:
        return no("alarms do not count (drift=false)")
    if situation.looked is None:
        return no("monitor has not looked at the champion yet")
    ago = _time(situation.now - situation.looked)
    if not situation.alarms:
        return no(f"monitor found no harm {ago} ago")
    named = ", ".join(situation.alarms)
    if situation.tried is not None:
        if situation.looked <= situation.tried:
            return no(f"the alarm {named} was answered by a retraining, and monitor has not looked since")
        since = situation.now - situation.tried
        if since < rules.pause:
            return no(f"the alarm {named} was answered {_time(since)} ago, and pause is {_time(rules.pause)}")
    return Reason("drift", True, f"monitor alarmed {ago} ago: {named}")


def _new(situation: Situation, rules: Rules) -> Reason:
    if rules.new_ratings is None:
        return Reason("new_ratings", False, f"{situation.new:,} new ratings do not count (new_ratings=none)")
    share = rules.new_ratings < 1
    least = rules.new_ratings * situation.learnt if share else rules.new_ratings
    limit = f"{rules.new_ratings:.3g} of {situation.learnt:,}" if share else f"{rules.new_ratings:,.0f}"
    holds = situation.new > 0 and situation.new >= least
    sentence = f"{situation.new:,} ratings are new, {'at least' if holds else 'fewer than'} {limit}"
    return Reason("new_ratings", holds, sentence)


def _age(situation: Situation, rules: Rules) -> Reason:
    if rules.max_age is None:
        return Reason("age", False, "age does not count (max_age=none)")
    start = max(situation.trained, situation.tried or 0.0)
    what = "the champion was trained" if start == situation.trained else "it was last tried"
    age = situation.now - start
    holds = age >= rules.max_age
    return Reason("age", holds, f"{what} {_time(age)} ago, max_age is {_time(rules.max_age)}")


def _time(seconds: float) -> str:
    """About how long, in the largest unit that fits."""
    for size, unit in ((_DAY, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{max(seconds, 0):.0f} s"
