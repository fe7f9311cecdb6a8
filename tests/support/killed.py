"""The end of a process in the middle of its work, as a test plays it."""


class KilledError(BaseException):
    """Stands for the end of the process."""
