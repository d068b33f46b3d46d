"""Regular expressions of routes: RE2's syntax, matched in time linear in the text, whatever expression someone wrote.

RE2 has no backtracking: its time is at most text * program. Both are bounded here. Expressions see octets, not
characters, which keeps classes such as `\\p{L}` small. One without special characters is compared as a literal.
"""

from __future__ import annotations

from collections.abc import Callable

import re2

LARGEST_PROGRAM = 1000  # instructions; an expression for UUIDs has 60, one for names of 253 characters 500
MOST_WORK = 1 << 21  # instructions * octets of text: 50 ms for the worst expression, 100 KB of text for a usual one
MEMORY = 1 << 20  # bytes for an expression's program and its lazily built automaton together
_SPECIAL = frozenset(r"\.+*?()|[]{}^$")

Test = Callable[[str], bool]


class BadRegex(ValueError):
    """The text says which expression and why."""


def compile_regex(pattern: str) -> Test:
    """Whether the whole of a text (octets read as Latin-1) matches. Raises BadRegex.

    A text that is too long for its expression (see MOST_WORK) does not match.
    """
    try:
        octets = pattern.encode()
    except UnicodeEncodeError:
        raise BadRegex(f"the expression {_shown(pattern)} is not text") from None
    if not _SPECIAL & set(pattern):
        return octets.decode("latin-1").__eq__
    compiled = _compiled(octets, pattern)
    match, longest = compiled.fullmatch, MOST_WORK // max(1, compiled.programsize)
    return lambda text: len(text) <= longest and match(text.encode("latin-1", "replace")) is not None


def _compiled(octets: bytes, pattern: str) -> re2._Regexp:
    options = re2.Options()
    options.max_mem = MEMORY
    options.encoding = re2.Options.Encoding.LATIN1
    options.never_capture = True
    options.log_errors = False
    try:
        compiled = re2.compile(octets, options)
    except re2.error as error:
        raise BadRegex(f"the expression {_shown(pattern)} is not RE2: {_said(error)}") from None
    if compiled.programsize > LARGEST_PROGRAM:
        raise BadRegex(f"the expression {_shown(pattern)} is too large: {compiled.programsize} instructions")
    return compiled


def _said(error: Exception) -> str:
    said = error.args[0] if error.args else ""
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)


def _shown(pattern: str) -> str:
    return ascii(pattern if len(pattern) <= 60 else pattern[:57] + "...")
