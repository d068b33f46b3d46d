"""Texts in routes that reach requests and answers: checked here, whoever let them in. Pure.

Each check returns what is wrong with the text, "" when nothing is.
"""

from __future__ import annotations

import re

import re2

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\uffff]*")  # RFC 9110 section 5.5: no controls, so no second header
_PATH = re.compile(r"/[\x21-\x7e]*")  # what can stand in a request line
_HOST = re.compile(r"(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_PIECE = re.compile(r"(\d{1,5})(h|ms|m|s)")
_DURATION = re.compile(r"((\d{1,5})(h|ms|m|s)){1,4}")  # GEP-2257
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_MAX_EXPRESSION = 1024  # as the CRD has it

# Headers that say where a message ends or how the connection goes on: a change of them is request smuggling. Host is
# what URLRewrite changes.
FRAMING = frozenset(
    {"connection", "content-length", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}
)


def header_name(text: str) -> str:
    if not _TOKEN.fullmatch(text):
        return f"{text!r} is not a header name"
    return ""


def changed_header(name: str, value: str = "") -> str:
    if name.lower() in FRAMING:
        return f"header {name} is the connection's own and cannot be changed"
    if name.lower() == "host":
        return f"header {name} is changed by a filter of type URLRewrite"
    if not _VALUE.fullmatch(value):
        return f"header {name} has a value with control characters"
    return header_name(name)


def path(text: str) -> str:
    return "" if _PATH.fullmatch(text) else f"{text!r} is not a path"


def hostname(text: str) -> str:
    return "" if len(text) <= 253 and _HOST.fullmatch(text) else f"{text!r} is not a host name"


def expression(text: str) -> str:
    """RE2, so that the time it takes is bounded whatever the request holds."""
    if len(text) > _MAX_EXPRESSION:
        return f"a regular expression of more than {_MAX_EXPRESSION} characters"
    try:
        re2.compile(text, _QUIET)
    except re2.error as error:
        return f"{text!r} is not a regular expression (RE2): {_words(error)}"
    return ""


def duration(text: str) -> float | None:
    """Seconds; None when it is none."""
    if not _DURATION.fullmatch(text):
        return None
    return sum(int(number) * _SECONDS[unit] for number, unit in _PIECE.findall(text))


def _quiet() -> re2.Options:
    options = re2.Options()
    options.log_errors = False  # it would write to standard error by itself
    return options


_QUIET = _quiet()


def _words(error: Exception) -> str:
    text = error.args[0] if error.args else ""
    return text.decode(errors="replace") if isinstance(text, bytes) else str(text)
