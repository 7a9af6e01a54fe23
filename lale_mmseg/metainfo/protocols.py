"""All evaluation protocols by name or letter."""

from __future__ import annotations

from ..errors import ConfigError
from . import inria, isprs
from .protocol import Protocol

#: By name, in the order of their letters.
PROTOCOLS: dict[str, Protocol] = {protocol.name: protocol for protocol in (*isprs.PROTOCOLS, *inria.PROTOCOLS)}


def find_protocol(name: str) -> Protocol:
    """Protocol by name, such as 'geoseg', or letter, such as 'A'.

    Raises:
        ConfigError: Unknown protocol; the message lists the known ones.
    """
    for protocol in PROTOCOLS.values():
        if name in (protocol.name, protocol.letter):
            return protocol
    known = ', '.join(f'{protocol.letter} {protocol.name!r} ({protocol.title})' for protocol in PROTOCOLS.values())
    raise ConfigError(f'protocol {name!r} is not known; known: {known}')
