"""The exceptions for what a user can mend."""


class InputError(ValueError, RuntimeError):
    """Something that was given is wrong; the message is one sentence: what was wrong, where, and what would be right.

    It is a RuntimeError too, which `torch.nn.Linear` and its like raise for tensors that do not fit. The command line
    prints it without a traceback and exits with code 2.
    """


class InputTypeError(InputError, TypeError):
    """An argument of another type, such as a list where a tensor is wanted, for which torch raises TypeError."""


class InputIndexError(InputError, IndexError):
    """An index that is out of range, for which torch raises IndexError."""
