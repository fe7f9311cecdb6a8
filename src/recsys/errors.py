"""The errors that a user's own input can cause."""


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is all the user sees, so it names the rule, the value, the place (file, row, column or
    parameter) and what to do about it.
    """


class DivergedError(InputError):
    """A training whose loss is no longer finite, for the settings it was given."""


class StoppedError(Exception):
    """A training that was asked to end and did, after a checkpoint."""


class RankError(Exception):
    """Processes that trained together ended without a result. The message is all the user sees."""


class JoinedError(Exception):
    """A training that another machine's process records and registers; `run_id` is that one's run."""

    def __init__(self, run_id: str, host: str) -> None:
        super().__init__(f"took part in run {run_id} of {host}, which has the result; nothing is registered from here")
        self.run_id = run_id


def in_one_line(error: BaseException) -> str:
    """An error of a library by its kind and what it says, for a message of ours: some take many lines."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
