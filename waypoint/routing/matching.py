"""Which rule a request takes: Gateway API's precedence, laid out once so that a request only walks it.

Exact path > regular expression > longest prefix > method > most headers > most query parameters > oldest route >
namespace/name > order in the route. (Where expressions stand is left to implementations: before prefixes, so that one
is of use beside a rule for "/".) Of GRPCRoute: service > method > most headers > the same rest.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from enum import IntEnum
from typing import Generic, TypeAlias, TypeVar
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from mesh.model.routing import GrpcMatch, HttpMatch, MatchType, ValueMatch
from mesh.policy.http.path import BadPath, canonical_path
from waypoint.routing.regex import compile_regex
from waypoint.routing.request import Request

T = TypeVar("T")
Test = Callable[[str], bool]
ValueTests = tuple[tuple[str, Test], ...]


class Place(IntEnum):
    """How a match looks at the path, in the order in which they are asked."""

    EXACT = 0
    REGEX = 1
    PREFIX = 2


class Candidate(Struct, Generic[T], frozen=True):
    """One match and the rule behind it, compiled."""

    place: Place
    path: str  # exact path, expression, or prefix without a slash at its end
    order: tuple[object, ...]  # age, name and number: among equals the least comes first
    outcome: T
    test: Test | None = None  # what remains to be asked of the path
    specific: int = 0  # of two that share `path`, the greater comes first: characters of a gRPC method
    method: str = ""
    headers: ValueTests = ()
    query: ValueTests = ()

    @property
    def rank(self) -> tuple[object, ...]:
        few = (-self.specific, self.method == "", -len(self.headers), -len(self.query))
        return (-len(self.path), *few, *self.order)

    @property
    def unconditional(self) -> bool:
        return not (self.method or self.test or self.headers or self.query)

    def holds(self, request: Request, headers: Mapping[str, str], query: Mapping[str, str]) -> bool:
        """For all but the path that found it."""
        if self.method and self.method != request.method:
            return False
        if self.test is not None and not self.test(request.path):
            return False
        for name, test in self.headers:
            value = headers.get(name)
            if value is None or not test(value):
                return False
        for name, test in self.query:
            value = query.get(name)
            if value is None or not test(value):
                return False
        return True


# In order of precedence: what must still be asked of a request (None: nothing), and the outcome.
Bucket: TypeAlias = "tuple[tuple[Candidate[T] | None, T], ...]"  # in quotes: compiled classes take no subscript
NOTHING: Mapping[str, str] = {}


class MatchIndex(Generic[T]):
    """All candidates of a port: dictionaries for exact paths and prefixes."""

    __slots__ = ("_depth", "_exact", "_prefixes", "_reads_headers", "_reads_query", "_regexes")

    def __init__(self, candidates: Iterable[Candidate[T]]) -> None:
        every = sorted(candidates, key=lambda candidate: candidate.rank)
        self._exact = _by_path(one for one in every if one.place is Place.EXACT)
        self._prefixes = _by_path(one for one in every if one.place is Place.PREFIX)
        self._regexes = _bucket(one for one in every if one.place is Place.REGEX)
        self._depth = max((prefix.count("/") for prefix in self._prefixes), default=0)
        self._reads_headers = any(one.headers for one in every)
        self._reads_query = any(one.query for one in every)

    def find(self, request: Request) -> T | None:
        """The outcome of the first candidate that matches."""
        path = request.path
        headers = _first_values(request) if self._reads_headers else NOTHING
        query = parse_query(request.query) if self._reads_query else NOTHING
        found = _first(self._exact.get(path, ()), request, headers, query)
        if found is None and self._regexes:
            found = _first(self._regexes, request, headers, query)
        if found is not None or path[:1] != "/":  # "*" is under no prefix
            return found
        end = self._deepest(path)
        while found is None and end >= 0:
            bucket = self._prefixes.get(path[:end])
            if bucket is not None:
                found = _first(bucket, request, headers, query)
            end = path.rfind("/", 0, end)
        return found

    def _deepest(self, path: str) -> int:
        """Where the longest prefix that any rule could have ends, so that long paths cost no more than short ones."""
        end = 0
        for _ in range(self._depth):
            end = path.find("/", end + 1)
            if end == -1:
                return len(path)
        return end


def _first(bucket: Bucket[T], request: Request, headers: Mapping[str, str], query: Mapping[str, str]) -> T | None:
    for condition, outcome in bucket:
        if condition is None or condition.holds(request, headers, query):
            return outcome
    return None


def _by_path(candidates: Iterable[Candidate[T]]) -> dict[str, Bucket[T]]:
    found: defaultdict[str, list[Candidate[T]]] = defaultdict(list)
    for candidate in candidates:
        found[candidate.path].append(candidate)
    return {path: _bucket(every) for path, every in found.items()}


def _bucket(candidates: Iterable[Candidate[T]]) -> Bucket[T]:
    return tuple((None if one.unconditional else one, one.outcome) for one in candidates)


def _first_values(request: Request) -> dict[str, str]:
    """Of a repeated header the first counts; Host is the authority."""
    values = dict(reversed(request.headers))
    values["host"] = request.authority
    return values


def parse_query(query: str) -> dict[str, str]:
    """Parameters, decoded, octets as Latin-1; of a repeated one the first counts."""
    if len(query) < 2:
        return {}
    values: dict[str, str] = {}
    for pair in query[1:].split("&"):
        name, _, value = pair.partition("=")
        values.setdefault(_parameter(name), _parameter(value))
    return values


def _parameter(text: str) -> str:
    if "%" not in text and "+" not in text:
        return text
    return unquote_to_bytes(text.replace("+", " ").encode("latin-1")).decode("latin-1")


# --- from Gateway API's matches. All of these raise BadRegex


def http_candidate(match: HttpMatch, order: tuple[object, ...], outcome: T) -> Candidate[T]:
    headers, query = _value_tests(match.headers), _value_tests(match.query)
    path = match.path.value
    test = None
    match match.path.type:
        case MatchType.EXACT:
            place, path = Place.EXACT, _canonical(path)
        case MatchType.PREFIX:
            place, path = Place.PREFIX, _canonical(path).rstrip("/")
        case MatchType.REGEX:
            place, test = Place.REGEX, compile_regex(path)
    return Candidate(place, path, order, outcome, test, 0, match.method, headers, query)


def grpc_candidate(match: GrpcMatch, order: tuple[object, ...], outcome: T) -> Candidate[T]:
    """A gRPC request is a POST of /<service>/<method>."""
    service, method = match.service, match.method
    headers = _value_tests(match.headers)
    if match.type is MatchType.REGEX and (service or method):
        pattern = f"/({service or '[^/]+'})/({method or '[^/]+'})"
        return Candidate(Place.REGEX, service, order, outcome, compile_regex(pattern), len(method), headers=headers)
    if service and method:
        return Candidate(Place.EXACT, f"/{service}/{method}", order, outcome, headers=headers)
    test = _of_method(method) if method else None
    path = f"/{service}" if service else ""
    return Candidate(Place.PREFIX, path, order, outcome, test, len(method), headers=headers)


def _of_method(method: str) -> Test:
    end = f"/{method}"
    return lambda path: path.endswith(end) and path.count("/") == 2


def prefix_of(match: HttpMatch) -> str | None:
    """The prefix that a filter may replace: of an exact match the whole path."""
    return None if match.path.type is MatchType.REGEX else _canonical(match.path.value).rstrip("/")


def _value_tests(matches: tuple[ValueMatch, ...]) -> ValueTests:
    """Of several for one name the first counts (HTTPHeaderMatch, HTTPQueryParamMatch)."""
    tests: dict[str, Test] = {}
    for match in matches:
        if match.name not in tests:
            tests[match.name] = compile_regex(match.value) if match.type is MatchType.REGEX else _equals(match.value)
    return tuple(tests.items())


def _equals(value: str) -> Test:
    return value.encode("utf-8", "surrogatepass").decode("latin-1").__eq__


def _canonical(path: str) -> str:
    """A path of a route in the spelling of requests. What is no path never matches one, as it is."""
    canonical = canonical_path(path.encode("utf-8", "surrogatepass").decode("latin-1"))
    return path if isinstance(canonical, BadPath) else canonical
