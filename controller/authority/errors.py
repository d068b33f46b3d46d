"""How the authority says no."""

from __future__ import annotations


class AuthorityError(Exception):
    """The authority's own files cannot be used; the text names the file."""


class RequestRefused(Exception):
    """A certificate request is not one that can be granted; the text is for the one who asked."""


class Unauthenticated(Exception):
    """A credential proves nothing; the text says why without saying what would."""


class Undecided(Unauthenticated):
    """Nobody can say now what a credential proves: the caller should come back."""
