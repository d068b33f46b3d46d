"""What somebody reads who starts the agent where it cannot run: one sentence, and a status that is not 0."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from ebpf.netns import in_netns
from mesh.runtime.environment import ConfigError
from tests.agent.node import ROOT, Node
from ztunnel.agent.config import read

BASE = {"NODE_NAME": "node1", "AMBIT_BPF_PINS": "/sys/fs/bpf/ambit-test-none", "PATH": "/usr/bin:/bin"}


def failure(environment: dict[str, str], *prefix: str) -> str:
    result = subprocess.run(
        [*prefix, sys.executable, "-m", "ztunnel.agent"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("NODE_NAME", "", "NODE_NAME is not set"),
        ("AMBIT_BPF_PINS", "", "AMBIT_BPF_PINS is not set"),
        ("XDS_ADDRESS", "http://c:15012", "XDS_ADDRESS='http://c:15012': the control plane is reached over TLS only"),
        ("CA_ADDRESS", "c:port", "CA_ADDRESS='c:port': not of the form"),
        ("SECRET_TTL", "1 day", "SECRET_TTL='1 day': not a duration"),
        ("ZTUNNEL_WORKERS", "0", "ZTUNNEL_WORKERS='0': not a number of worker processes"),
        ("LOG_FORMAT", "xml", "LOG_FORMAT='xml': neither json nor plain"),
        ("RUST_LOG", "loud", "RUST_LOG='loud': 'loud' is not LEVEL"),
        ("IPV6_ENABLED", "maybe", "IPV6_ENABLED='maybe': neither true nor false"),
        ("TERMINATION_GRACE_PERIOD_SECONDS", "soon", "TERMINATION_GRACE_PERIOD_SECONDS='soon': not a number"),
    ],
)
def test_a_bad_value_is_named(name: str, value: str, words: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(words)):
        read(BASE | {name: value})


def test_a_bad_value_is_one_line_and_status_1() -> None:
    assert failure(BASE | {"SECRET_TTL": "1 day"}).startswith("ztunnel: SECRET_TTL='1 day': not a duration")


def test_defaults_and_names_are_istios() -> None:
    config = read(
        BASE
        | {
            "XDS_ADDRESS": "https://istiod:15012",
            "CA_ADDRESS": "",
            "ISTIO_META_CLUSTER_ID": "blue",
            "ISTIO_META_OWNER": "me",
            "XDS_HEADER_X-Tenant": "one",
            "SECRET_TTL": "1h30m",
            "TERMINATION_GRACE_PERIOD_SECONDS": "30",
            "RUST_LOG": "warn,access=info",
            "LOG_FORMAT": "json",
        }
    )
    assert config.xds.address == "istiod:15012"
    assert config.ca.address == ""
    assert config.node.cluster_id == "blue"
    assert config.node.metadata == {"CLUSTER_ID": "blue", "OWNER": "me"}
    assert config.xds.headers == {"x-tenant": "one"}
    assert config.secret_ttl == 5400
    assert config.process.drain_deadline == 25
    assert config.process.log_levels == {"": "warn", "access": "info"}
    assert config.process.log_json
    assert config.process.workers == 1
    assert str(config.inpod.zds_path) == "/var/run/ztunnel/ztunnel.sock"


@pytest.mark.root
def test_without_ebpf_programs_it_says_what_to_run() -> None:
    line = failure(BASE)
    assert "/sys/fs/bpf/ambit-test-none" in line
    assert "run the loader first" in line


@pytest.mark.root
def test_without_root_it_says_so() -> None:
    line = failure(BASE, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    assert "must run as root" in line


@pytest.mark.root
def test_a_state_directory_that_is_a_file_is_named(node: Node, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    environment = node.environment(AMBIT_STATE_DIR=str(tmp_path / "file"))
    line = failure(environment, "nsenter", f"--net={node.netns}")
    assert f"cannot use the state directory {tmp_path / 'file'}" in line


@pytest.mark.root
@pytest.mark.parametrize(("port", "name"), [(15000, "admin"), (15020, "metrics"), (15021, "readiness")])
def test_a_port_in_use_is_named(node: Node, port: int, name: str) -> None:
    with node.netns.open() as netns:
        squatter = in_netns(netns.fileno(), lambda: socket.create_server(("127.0.0.1", port)))
    with squatter:
        line = failure(node.environment(), "nsenter", f"--net={node.netns}")
    assert f"the {name} server cannot listen on" in line
    assert f":{port}" in line
    assert "in use" in line
    assert not node.workers()
