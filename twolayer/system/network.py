"""The interfaces of the network."""

from __future__ import annotations

import os
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


def use_the_way_to(host: str, port: int) -> None:
    """Let gloo use the interface that leads to the others, where this machine's name leads to itself alone.

    Debian's 127.0.1.1 is such a name: gloo would listen where no other machine can connect.
    """
    with suppress(OSError):
        own, there = socket.gethostbyname(socket.gethostname()), socket.gethostbyname(host)
        if not own.startswith("127.") or there.startswith("127.") or "GLOO_SOCKET_IFNAME" in os.environ:
            return
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((there, port))
            address = probe.getsockname()[0]
        if name := interface(address):
            os.environ["GLOO_SOCKET_IFNAME"] = name
