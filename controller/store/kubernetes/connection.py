"""Which API server, and as whom: a kubeconfig file, or what a pod finds in its service account's directory."""

from __future__ import annotations

import os
from pathlib import Path

import yaml
from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from kubernetes.config.config_exception import ConfigException

from controller.store.interface import StoreError
from controller.store.kubernetes.api import SOCKET_OPTIONS, ApiServer

_KUBECONFIG = "KUBECONFIG"
_CONNECTIONS = 32  # kept open: one for each kind that is watched, and those of requests


def connect(kubeconfig: Path | None = None, context: str = "") -> ApiServer:
    """Without a file: the one that KUBECONFIG names, else the pod's own service account. Nothing is asked of the
    server yet. Raises StoreError, naming the file."""
    configuration = Configuration()
    try:
        if kubeconfig is not None or context or os.environ.get(_KUBECONFIG):
            file = str(kubeconfig) if kubeconfig is not None else None
            config.load_kube_config(file, context or None, configuration, persist_config=False)
        else:
            config.load_incluster_config(configuration)
    except (ConfigException, OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        where = kubeconfig or os.environ.get(_KUBECONFIG) or "this pod's service account"
        raise StoreError(f"{where} does not say how to reach an API server: {' '.join(str(error).split())}") from error
    configuration.socket_options = SOCKET_OPTIONS
    configuration.connection_pool_maxsize = _CONNECTIONS
    return ApiServer(ApiClient(configuration))
