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
