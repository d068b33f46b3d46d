"""Resources of a waypoint on the wire: JSON of the values in mesh.model.routing and mesh.model.http_policy."""

from __future__ import annotations

import msgspec

from mesh.model.http_policy import HttpPolicy
from mesh.model.routing import Gateway, ServiceRouting
from mesh.wire.errors import InvalidResource

Routing = Gateway | ServiceRouting | HttpPolicy

_decoder: msgspec.json.Decoder[Routing] = msgspec.json.Decoder(Routing)
_encoder = msgspec.json.Encoder()


def encode_routing(value: Routing) -> bytes:
    return _encoder.encode(value)


def decode_routing(name: str, payload: bytes) -> Routing:
    """The value of resource `name`. Raises InvalidResource."""
    try:
        return _decoder.decode(payload)
    except msgspec.DecodeError as error:
        reason, _, field = str(error).partition(" - at ")
        raise InvalidResource(name, field.strip("`") or "$", reason) from None
