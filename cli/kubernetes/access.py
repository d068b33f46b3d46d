"""The way to an API server: which one the kubeconfig means, how to read from it, and what its refusals mean."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError, SSLError
from websocket import WebSocketBadStatusException
from yaml import YAMLError

from cli.errors import CommandFailed
from cli.home import TIMEOUT, NoAnswer, NoRight
from cli.kubernetes.configured import has_kubeconfig, is_in_cluster, kubeconfigs

READ_TIMEOUT = 30.0  # seconds; 500 pods are a few MB, on a slow line


@dataclass(frozen=True, slots=True)
class Access:
    """An API server and who we are there."""

    context: str
    configuration: Configuration

    def client(self) -> ApiClient:
        """A new one: the package's streams make theirs unusable for other threads while they open."""
        return ApiClient(self.configuration)

    def read(self, what: str, call: Callable[[ApiClient, Mapping[str, Any]], Any]) -> Any:
        """JSON that `call` reads with the options that it gets. Raises NoAnswer, CommandFailed."""
        options = {"_preload_content": False, "_request_timeout": (TIMEOUT, READ_TIMEOUT)}
        with self.client() as api:
            try:
                return json.loads(call(api, options).data)
            except (ApiException, HTTPError, OSError, ValueError) as problem:
                raise self.refusal(what, problem) from None

    def refusal(self, what: str, problem: Exception) -> NoAnswer | CommandFailed:
        """What went wrong when `what` was tried. CommandFailed: nothing else would go better."""
        status, words = _status_and_words(problem)
        if status == 401:
            return CommandFailed(
                f"the API server {self._server} does not accept the credentials of {self.context}: they are wrong or "
                "have expired; sign in again, or name another context with --context"
            )
        if status == 403:
            why = words.partition(" is forbidden: ")[2] or words
            return NoRight(f"no right to {what} in {self.context}: {why}; ask an administrator of the cluster for it")
        if status:
            return NoAnswer(f"the API server cannot {what}: {words}")
        return CommandFailed(f"the API server {self._server} of {self.context} cannot be reached: {words}; is it up?")

    @property
    def _server(self) -> str:
        return str(self.configuration.host)


def open_access(kubeconfig: Path | None, context: str) -> Access:
    """As kubectl chooses: the named file and context, else $KUBECONFIG, ~/.kube/config, else the pod's own account.

    Raises CommandFailed."""
    found = Configuration()
    found.retries = False  # a person waits
    if kubeconfig is None and not has_kubeconfig() and is_in_cluster():
        config.load_incluster_config(client_configuration=found)
        return Access("this pod's own cluster", found)
    files = str(kubeconfig) if kubeconfig else kubeconfigs()
    try:
        name = _chosen(files, context)
        config.load_kube_config(files, name, client_configuration=found, persist_config=False)
    except (config.ConfigException, OSError, ValueError, TypeError, YAMLError) as problem:
        raise CommandFailed(f"the kubeconfig {files} cannot be used: {_first_line(problem)}") from None
    return Access(f"context {name}", found)


def _chosen(files: str, context: str) -> str:
    contexts, current = config.list_kube_config_contexts(files)
    names = [str(each["name"]) for each in contexts]
    if context and context not in names:
        raise CommandFailed(f"the kubeconfig {files} has no context {context!r}; it has {', '.join(names)}")
    return context or str(current["name"])


def _status_and_words(problem: Exception) -> tuple[int, str]:
    """The HTTP status (0: nothing was answered) and why, in the API server's words where there are any."""
    cause = problem.__context__  # the package's streams wrap what they met, without saying so
    if isinstance(cause, WebSocketBadStatusException):
        return cause.status_code, _words(cause.resp_body) or f"HTTP {cause.status_code}"
    if isinstance(problem, ApiException) and problem.status:
        return problem.status, _words(problem.body) or f"HTTP {problem.status} {problem.reason}"
    if isinstance(problem, ApiException):
        return 0, _first_line(cause or problem)
    if isinstance(problem, json.JSONDecodeError):
        return 200, "its answer is no JSON"
    reason = getattr(problem, "reason", None)
    if isinstance(reason or problem, SSLError):
        return 0, f"TLS fails: {_first_line(reason or problem)}"
    return 0, _first_line(reason or problem)


def _words(body: str | bytes | None) -> str:
    """The message of a Kubernetes Status object, else the first line of a text."""
    text = (body or b"").decode(errors="replace") if isinstance(body, bytes | None) else body
    try:
        return str(json.loads(text)["message"])
    except (ValueError, KeyError, TypeError):
        return text.strip().partition("\n")[0][:300]


def _first_line(problem: object) -> str:
    # urllib3 begins its texts with the connection object: "<...>: Failed to ..." or "HTTPSConnection(...): Failed".
    text = str(problem).strip().partition("\n")[0]
    return text.rpartition("): ")[2] if "Connection(" in text else text
