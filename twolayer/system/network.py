"""The interfaces of the network."""

from __future__ import annotations

import socket
from contextlib import suppress
from importlib import import_module


def interface(address: str) -> str:
    """The name of the interface that has an IPv4 address; empty where the system does not say."""
    try:
        fcntl = import_module("fcntl")
    except ImportError:
        return ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with suppress(OSError):
                reply = fcntl.ioctl(probe.fileno(), 0x8915, name.encode()[:15].ljust(256, b"\0"))  # SIOCGIFADDR
                if socket.inet_ntoa(reply[20:24]) == address:
                    return name
    return ""
