"""The one exception that means "the user can put this right"."""


class UserError(Exception):
    """Wrong input, told in one sentence that names the file or key and the remedy.

    Entry points print it as `error: ...` to stderr and exit with status 2, without a traceback.
    """
