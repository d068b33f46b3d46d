"""Reads a process's environment: each variable once, checked, with the variable's name in every complaint."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

Value = TypeVar("Value")

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


class ConfigError(Exception):
    """A variable has a value that cannot be used; the text names it."""


class Reader:
    """Of one environment."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def text(self, name: str, default: str = "") -> str:
        return self._environment.get(name, default)

    def required(self, name: str) -> str:
        value = self.text(name)
        if not value:
            raise ConfigError(f"{name} is not set")
        return value

    def prefixed(self, prefix: str) -> dict[str, str]:
        return {
            name.removeprefix(prefix): value for name, value in self._environment.items() if name.startswith(prefix)
        }

    def parsed(self, name: str, default: str, parse: Callable[[str], Value]) -> Value:
        value = self.text(name, default)
        try:
            return parse(value)
        except ValueError as error:
            raise ConfigError(f"{name}={value!r}: {error}") from error


def duration(text: str) -> float:
    """Seconds from "24h", "1m30s", "500ms". Raises ValueError."""
    if not re.fullmatch(r"(\d+(\.\d+)?(ms|s|m|h))+", text):
        raise ValueError("not a duration such as 30s, 5m or 24h")
    return sum(float(number) * _UNITS[unit] for number, _, unit in re.findall(r"(\d+(\.\d+)?)(ms|s|m|h)", text))


def boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0"):
        raise ValueError("neither true nor false")
    return text.lower() in ("true", "1")


def log_format(text: str) -> bool:
    if text not in ("json", "plain", "text"):
        raise ValueError("neither json nor plain")
    return text == "json"


def optional_duration(text: str) -> float | None:
    return duration(text) if text else None


def optional_seconds(text: str) -> float | None:
    if text and not re.fullmatch(r"\d+(\.\d+)?", text):
        raise ValueError("not a number of seconds")
    return float(text) if text else None


def address(text: str) -> str:
    if not text:
        return ""
    if text.startswith("http://"):
        raise ValueError("the control plane is reached over TLS only: use https://HOST:PORT")
    host, colon, port = text.removeprefix("https://").rstrip("/").rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError("not of the form https://HOST:PORT")
    return f"{host}:{port}"
