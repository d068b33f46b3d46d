"""Expressions of routes: RE2's syntax, and no text or expression that takes long."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from waypoint.routing.regex import BadRegex, compile_regex


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [
        ("/users/[0-9]+", "/users/12", True),
        ("/users/[0-9]+", "/users/12/x", False),
        ("/users/[0-9]+", "x/users/12", False),
        ("one|two", "two", True),
        ("one|two", "twofold", False),
        ("(?i)abc", "ABC", True),
        ("plain-text", "plain-text", True),
        ("plain-text", "plain-texts", False),
        ("a.c", "abc", True),
        ("", "", True),
        ("caf\u00e9", "caf\xc3\xa9", True),
        (r"v\d{1,3}", "v123", True),
        (r"\Qa.b\E", "a.b", True),
        ("a$", "a\n", False),
        (".*", "a\nb", False),
    ],
)
def test_the_whole_text_matches(pattern: str, text: str, expected: bool) -> None:
    assert compile_regex(pattern)(text) is expected


@pytest.mark.parametrize(
    "pattern",
    ["(", "[", "a**", "(?=a)", r"(a)\1", "(?<!a)b", "a{1001}", "((a{100}){100}){100}", "(.{500}){2}", "\ud800"],
)
def test_what_is_not_re2_or_too_large_is_refused(pattern: str) -> None:
    with pytest.raises(BadRegex, match="expression"):
        compile_regex(pattern)


@pytest.mark.parametrize(
    "pattern",
    ["(a*)*b", "(a+)+b", "(a|aa)+b", "(a|a?)+b", "[ab]*a[ab]{400}", "(x+x+)+y", "(.*a){30}b", ".*.*.*.*.*.*c"],
)
def test_hostile_expressions_take_no_longer_on_hostile_texts(pattern: str) -> None:
    """Each of these takes a backtracking engine longer than the age of the universe: the time-out is the assertion."""
    test = compile_regex(pattern)
    for _ in range(10):
        assert test("ab" * 30_000) is False
        assert test("a" * 60_000) is False


@settings(deadline=None)
@given(st.text(max_size=30), st.text(max_size=30))
def test_any_pattern_is_refused_or_answers(pattern: str, text: str) -> None:
    try:
        test = compile_regex(pattern)
    except BadRegex:
        return
    assert test(text) in (True, False)
