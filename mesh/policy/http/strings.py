"""Istio's notation for strings in a policy, compiled: "abc", "abc*", "*abc", "*", and templates of paths."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from mesh.policy.http.path import pattern_text

Test = Callable[[str], bool]
Tokens = list[str | None]  # the segments of a template; None is one segment of any kind


class Unbuildable(ValueError):
    """A clause that cannot be evaluated; the text says which value and why."""


def any_string(patterns: Iterable[str], spelled: Callable[[str], str] = str) -> Test:
    """Whether a text matches one of the patterns. "*" is any text but the empty one; the empty pattern matches none.

    `spelled` gives what is literal in a pattern the spelling of the texts.
    """
    exact, prefixes, suffixes, present = set(), [], [], False
    for pattern in patterns:
        if pattern == "*":
            present = True
        elif pattern.endswith("*"):
            prefixes.append(spelled(pattern[:-1]))
        elif pattern.startswith("*"):
            suffixes.append(spelled(pattern[1:]))
        elif pattern:
            exact.add(spelled(pattern))
    known, starts, ends = frozenset(exact), tuple(prefixes), tuple(suffixes)
    if not (starts or ends or present):
        return known.__contains__

    def test(text: str) -> bool:
        return text in known or text.startswith(starts) or text.endswith(ends) or (present and text != "")

    return test


def any_host(patterns: Iterable[str]) -> Callable[[tuple[str, str]], bool]:
    """As `any_string` for (name, name:port): without regard to case; a pattern without a port holds for every port."""
    lowered = [pattern.lower() for pattern in patterns]
    with_port = [pattern for pattern in lowered if _has_port(pattern)]
    by_name = any_string(_without_dot(pattern) for pattern in lowered if not _has_port(pattern))
    by_both = any_string(with_port)
    return lambda host: by_name(host[0]) or by_both(host[1])


def _has_port(pattern: str) -> bool:
    _, colon, port = pattern.rpartition(":")
    return bool(colon) and (port == "*" or port.isdigit())


def _without_dot(pattern: str) -> str:
    return pattern.rstrip(".")


def any_path(patterns: Iterable[str]) -> Test:
    """As `any_string` for one reading of a path, and templates: "{*}" is one segment, "{**}" is any number.

    Raises Unbuildable.
    """
    values = list(patterns)
    plain = any_string((value for value in values if "{" not in value), pattern_text)
    templates = [_template(value) for value in values if "{" in value]
    if not templates:
        return plain
    return lambda path: plain(path) or any(template(path) for template in templates)


ONE, MANY = "{*}", "{**}"


def _template(pattern: str) -> Test:
    segments = pattern.split("/")
    for segment in segments:
        if segment not in (ONE, MANY) and any(character in segment for character in "{}*"):
            raise Unbuildable(f"path template {pattern!r}: {segment!r} is neither a literal nor {ONE} nor {MANY}")
    if segments.count(MANY) > 1:
        raise Unbuildable(f"path template {pattern!r}: {MANY} may occur once")
    if MANY not in segments:
        tokens = _tokens(segments)
        return lambda path: _agree(tokens, path.split("/"))
    at = segments.index(MANY)
    return _open_template(_tokens(segments[:at]), _tokens(segments[at + 1 :]))


def _tokens(segments: list[str]) -> Tokens:
    return [None if segment == ONE else pattern_text(segment) for segment in segments]


def _open_template(head: Tokens, tail: Tokens) -> Test:
    """{**} stands for at least one segment, which may be empty: "/a/{**}" matches "/a/" and not "/a"."""

    def test(path: str) -> bool:
        found = path.split("/")
        if len(found) <= len(head) + len(tail):
            return False
        return _agree(head, found[: len(head)]) and _agree(tail, found[len(found) - len(tail) :])

    return test


def _agree(wanted: Tokens, found: list[str]) -> bool:
    if len(found) != len(wanted):
        return False
    return all(have != "" if want is None else have == want for want, have in zip(wanted, found, strict=True))
