"""What can go wrong in a run, by whose fault."""


class InputError(ValueError):
    """The caller asked for something that cannot be done: one line that names the thing, the reason and the remedy."""


class RunIncompleteError(RuntimeError):
    """A run could not finish; what is done is kept, and the same command goes on from there."""
