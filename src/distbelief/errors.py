"""The one error a user can cause."""


class UserError(Exception):
    """Bad input: a configuration, a file or a value that the user can mend.

    Its text is one line that names the key, file or rank, the offending value and what was expected. The
    command line prints that line alone, without a traceback, and ends every rank with exit code 2. Mistakes
    of our own are never a UserError.
    """
