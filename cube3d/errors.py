"""The errors that a user can mend: bad input, a wrong option, a missing file, a full disk."""

from collections.abc import Sequence


class UserError(ValueError):
    """Its message names what is wrong and what would be right; the command line prints it without a traceback."""


class StorageError(UserError):
    """Something could not be written. It says nothing of the input: the same call may succeed on another disk."""


class BusyError(UserError):
    """Another process is at work on the same thing. It says nothing of the input: the same call may succeed later."""


NAMED = 10
"""Texts that a message names at most."""


def named(texts: Sequence[str]) -> str:
    """The beginnings of the texts, for a message."""
    more = f" and {len(texts) - NAMED} more" if len(texts) > NAMED else ""
    return ", ".join(repr(text[:80]) for text in texts[:NAMED]) + more


def is_interrupt(error: BaseException | None) -> bool:
    """Whether an interrupt is what an error came from: libraries that are being imported make other errors of one."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
