"""The values in Istio's policies, each read into what a connection is compared with. Raises ValueError: a sentence.

Notation of istio/api security/v1 AuthorizationPolicy: "abc" exact, "abc*" prefix, "*abc" suffix, "*" present.
"""

from __future__ import annotations

from ipaddress import ip_network

from mesh.model.address import Cidr
from mesh.model.policy import MatchKind, ServiceAccountMatch, StringMatch
from mesh.wire.address import decode_cidr
from mesh.wire.errors import InvalidField


def string_match(text: str) -> StringMatch:
    if not text:
        raise ValueError("an empty value matches nothing")
    if text == "*":
        return StringMatch(MatchKind.PRESENCE)
    inner = text[1:] if text.startswith("*") else text.removesuffix("*")
    if "*" in inner:
        raise ValueError(f"{text!r}: a * may only be the first or the last character")
    if text.startswith("*"):
        return StringMatch(MatchKind.SUFFIX, inner)
    return StringMatch(MatchKind.PREFIX if text.endswith("*") else MatchKind.EXACT, inner)


def principal(text: str) -> StringMatch:
    if text.startswith("spiffe://"):
        raise ValueError(f"{text!r}: a principal is written without spiffe://")
    return string_match(text)


def trust_domain(text: str) -> StringMatch:
    """As a pattern of principals: "example.org" is those that begin with "example.org/"."""
    match = string_match(text)
    if "/" in match.value:
        raise ValueError(f"{text!r} is not a trust domain")
    if match.kind is MatchKind.SUFFIX:
        raise ValueError(f"{text!r}: of a trust domain only the end may be left open")
    return StringMatch(MatchKind.PREFIX, f"{match.value}/") if match.kind is MatchKind.EXACT else match


def service_account(text: str, namespace: str) -> ServiceAccountMatch:
    """ "account" (of the policy's own namespace) or "namespace/account"."""
    where, slash, name = text.rpartition("/")
    if not name or "*" in text or "/" in where or (slash and not where):
        raise ValueError(f"{text!r} is neither a service account nor namespace/account")
    return ServiceAccountMatch(where or namespace, name)


def block(text: str) -> Cidr:
    """An address or a CIDR; bits behind the prefix do not count."""
    try:
        network = ip_network(text, strict=False)
        return decode_cidr(network.network_address.packed, network.prefixlen, text)
    except InvalidField as error:
        raise ValueError(f"{text!r}: {error.reason}") from None
    except ValueError:
        raise ValueError(f"{text!r} is neither an IP address nor a CIDR") from None


def port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535):
        raise ValueError(f"{text!r} is not a port between 1 and 65535")
    return int(text)
