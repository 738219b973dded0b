"""The exceptions that the entry points tell in one sentence."""


class UserError(ValueError):
    """Wrong input, told in one sentence that names the file or key and the remedy.

    Entry points print it as `error: ...` to stderr and exit with status 2, without a traceback.
    """


class Preempted(Exception):
    """The run ended before its work was done, and the same command continues it.

    Entry points print the sentence to stderr and exit with status 75 (EX_TEMPFAIL).
    """
