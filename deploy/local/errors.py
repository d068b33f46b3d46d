"""What goes wrong with a local mesh in ways that its user can do something about."""


class LocalError(Exception):
    """The text is one sentence that says what, where, and what to do."""
