"""Errors that a user can cause and a user can mend.

Each takes one message, so that it survives pickling between Ray processes: one sentence that names the value
at fault and the fix. What only we can get wrong is an assert instead.
"""


class T2LError(Exception):
    """Base of everything that t2l raises on purpose."""


class T2LValueError(T2LError, ValueError):
    """A value that was given to t2l cannot be used."""


class ConfigError(T2LValueError):
    """A setting is unknown, of the wrong type or out of range."""


class SpecMismatchError(T2LValueError):
    """Two sides (adapter, checkpoint, base model) disagree on modules, layers, shapes or scaling."""


class CheckpointError(T2LValueError):
    """A checkpoint or adapter folder is missing, incomplete, damaged or uses an unsupported feature."""


class DescriptionError(T2LValueError):
    """A task description is empty, too long or not text."""


class DataError(T2LValueError):
    """A task or data file does not hold what it should."""


class ResourceError(T2LValueError):
    """The machine or cluster lacks what was asked for (accelerators, memory, disk, replicas)."""


class HubAccessError(T2LValueError):
    """The model hub refused or could not be reached."""


class EndpointError(T2LValueError):
    """A language model's endpoint could not be reached, or refused what was asked of it."""
