"""The one exception for what a user can mend."""


class InputError(ValueError):
    """Something that was given is wrong; the message is one sentence: what was wrong, where, and what would be right.

    The command line prints it without a traceback and exits with code 2.
    """
