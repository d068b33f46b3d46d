"""Addresses as workload.proto and authorization.proto carry them: packed bytes and a prefix length."""

from __future__ import annotations

from mesh.model.address import Cidr, Ip, from_packed, is_v6, packed
from mesh.model.workload import GatewayAddress, NetworkAddress, ServiceKey
from mesh.wire.errors import InvalidField, port
from mesh.wire.generated import workload_pb2 as wire

_MAPPED_BITS = 96  # of an IPv4-mapped IPv6 address, before the IPv4 part


def decode_ip(address: bytes, field: str) -> Ip:
    """Raises InvalidField unless there are 4 or 16 bytes."""
    if len(address) not in (4, 16):
        raise InvalidField(field, f"an address has 4 or 16 bytes, not {len(address)}")
    return from_packed(address)


def decode_cidr(address: bytes, length: int, field: str) -> Cidr:
    """Raises InvalidField when the prefix is longer than the address."""
    ip = decode_ip(address, field)
    if len(address) == 16 and not is_v6(ip):
        length -= _MAPPED_BITS
    if not 0 <= length <= _bits(ip):
        raise InvalidField(field, f"{ip} has no prefix of length {length}")
    return Cidr(ip, length)


def decode_network_address(message: wire.NetworkAddress, field: str) -> NetworkAddress:
    if not message.HasField("length"):
        return NetworkAddress(message.network, decode_ip(message.address, field))
    cidr = decode_cidr(message.address, message.length, field)
    return NetworkAddress(message.network, cidr.ip, None if cidr.length == _bits(cidr.ip) else cidr.length)


def encode_network_address(address: NetworkAddress) -> wire.NetworkAddress:
    return wire.NetworkAddress(network=address.network, address=packed(address.ip), length=address.length)


def decode_gateway(message: wire.GatewayAddress, field: str) -> GatewayAddress:
    """Raises InvalidField when the gateway says neither a hostname nor an address."""
    hbone_port = port(message.hbone_mtls_port, f"{field}.hbone_mtls_port")
    match message.WhichOneof("destination"):
        case "hostname":
            key = service_key(f"{message.hostname.namespace}/{message.hostname.hostname}", f"{field}.hostname")
            return GatewayAddress(key, hbone_port)
        case "address":
            return GatewayAddress(decode_network_address(message.address, f"{field}.address"), hbone_port)
        case _:
            raise InvalidField(field, "it has neither a hostname nor an address")


def encode_gateway(gateway: GatewayAddress | None) -> wire.GatewayAddress | None:
    if gateway is None:
        return None
    if isinstance(gateway.destination, NetworkAddress):
        address = encode_network_address(gateway.destination)
        return wire.GatewayAddress(address=address, hbone_mtls_port=gateway.hbone_port)
    namespace, _, hostname = gateway.destination.partition("/")
    name = wire.NamespacedHostname(namespace=namespace, hostname=hostname)
    return wire.GatewayAddress(hostname=name, hbone_mtls_port=gateway.hbone_port)


def service_key(text: str, field: str) -> ServiceKey:
    """Raises InvalidField unless `text` is "namespace/hostname"."""
    namespace, _, hostname = text.partition("/")
    if not namespace or not hostname or "/" in hostname:
        raise InvalidField(field, f"{text!r} is not NAMESPACE/HOSTNAME")
    return ServiceKey(text)


def _bits(ip: Ip) -> int:
    return 128 if is_v6(ip) else 32
