"""contract.h and contract.py say the same; so do the maps that the kernel made."""

import shutil
import subprocess

import pytest

from ebpf import contract, features, hooks, source
from ebpf.maps import Map
from mesh.model import ports
from mesh.model.address import Ip, SocketAddress
from tests.ebpf.stage import Stage

LAYOUT = {
    "struct endpoint": contract.ENDPOINT_SIZE,
    "struct disguise": contract.DISGUISE_SIZE,
    "struct flow": contract.FLOW_SIZE,
    "struct dns_client": contract.DNS_CLIENT_SIZE,
    "struct local_address": 16,
    "struct pod": contract.POD_SIZE,
}
OFFSETS = {
    ("struct endpoint", "port"): 16,
    ("struct disguise", "shown"): contract.ENDPOINT_SIZE,
    ("struct flow", "connector"): 8,
    ("struct flow", "acceptor"): 8 + contract.ENDPOINT_SIZE,
    ("struct dns_client", "source"): 8,
    ("struct pod", "ip6"): 4,
}
CONSTANTS = {
    "CONTRACT_VERSION": contract.CONTRACT_VERSION,
    "PORT_OUTBOUND": ports.OUTBOUND,
    "PORT_INBOUND": ports.INBOUND_PLAINTEXT,
    "PORT_HBONE": ports.HBONE,
    "PORT_DNS": ports.DNS,
}


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_structures_and_constants() -> None:
    facts = [
        *(f"sizeof({name}) == {size}" for name, size in LAYOUT.items()),
        *(f"__builtin_offsetof({name}, {field}) == {offset}" for (name, field), offset in OFFSETS.items()),
        *(f"{name} == {value}" for name, value in CONSTANTS.items()),
    ]
    code = "#include <linux/types.h>\n" + (source.DIRECTORY / "contract.h").read_text()
    code += "".join(f'_Static_assert({fact}, "{fact}");\n' for fact in facts)
    command = ["cc", "-fsyntax-only", "-x", "c", "-"]
    done = subprocess.run(command, input=code, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.root
def test_maps(stage: Stage) -> None:
    for name, layout in contract.MAPS.items():
        pinned = Map.open(stage.pins / "maps" / name)
        info = pinned.info
        pinned.close()
        assert contract.MapLayout(info.type, info.key_size, info.value_size, info.entries) == layout, name
    assert {pin.name for pin in (stage.pins / "maps").iterdir()} == set(contract.MAPS)


@pytest.mark.parametrize("ip", ["10.0.0.1", "255.255.255.255", "fd00::1", "2001:db8::ffff:0:1"])
def test_endpoints_survive_the_way_to_the_kernel_and_back(ip: str) -> None:
    address = SocketAddress(Ip(ip), 54321)
    assert contract.unpack_endpoint(contract.pack_endpoint(address)) == address


def test_every_source_file_is_compiled() -> None:
    assert sorted(source.ORDER) == sorted(path.name for path in source.DIRECTORY.iterdir())


@pytest.mark.root
def test_this_kernel_has_what_it_takes() -> None:
    assert features.missing() == []


@pytest.mark.root
def test_a_place_that_the_kernel_does_not_know_is_missing() -> None:
    """As on a kernel that is too old; the sentence says what, and since when."""
    unknown = hooks.Hook("connect9", hooks.CGROUP_SOCK_ADDR, 99, "9.9")
    assert not features.accepts(unknown)
    feature = features.kernel_feature("connect9 programs", unknown.since, False)
    assert "connect9 programs" in feature.remedy
    assert "9.9" in feature.remedy


@pytest.mark.root
def test_a_helper_that_the_kernel_does_not_know_is_missing() -> None:
    unknown_helper = bytes.fromhex("85000000ffff0000")
    assert not features.accepts(hooks.CGROUP_HOOKS[0], unknown_helper + features.RETURN_ONE)
