"""The error that a user can mend: bad input, a wrong option, a missing file."""


class UserError(ValueError):
    """Its message names what is wrong and what would be right; the command line prints it without a traceback."""
