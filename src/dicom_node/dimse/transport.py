"""A connection at its two ends: the handshake of TLS, if any, and the last word of either side.

Below TLS it is a socket all the same. What ends it is done to that socket: SSLSocket.shutdown()
would drop the layer, and whatever is sent afterwards would go out in clear.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable
from contextlib import suppress

from dicom_node.dimse.tls import Contexts, NoTls, client_context
from dicom_node.domain.records import Peer

_WASTE_BYTES = 8 * 1024


def below_tls(connection: socket.socket, contexts: Contexts) -> ssl.SSLSocket:
    """The accepted connection as one of TLS, before its handshake; it takes the socket over."""
    return contexts().wrap_socket(
        connection, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
    )


def deafen(connection: socket.socket) -> None:
    """Have whoever waits for its next byte see its end; to be called from another thread."""
    with suppress(OSError):  # it may be closed already
        socket.socket.shutdown(connection, socket.SHUT_RD)


def give_up(connection: socket.socket) -> None:
    """Keep nothing for a peer that does not take it: close() will reset the connection."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def say_goodbye(connection: socket.socket, within_s: float, enough: Callable[[], bool]) -> None:
    """Wait for the peer to close: with bytes unread, close() would destroy our last PDU."""
    until = time.monotonic() + within_s
    if isinstance(connection, ssl.SSLSocket):
        with suppress(OSError):
            connection.settimeout(within_s)
            connection.unwrap()  # so that the peer knows that nothing was cut off
    with suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_WR)
        waste = bytearray(_WASTE_BYTES)
        while (left := until - time.monotonic()) > 0 and not enough():
            connection.settimeout(left)
            if not socket.socket.recv_into(connection, waste):
                return


def connected(peer: Peer, seconds: float) -> socket.socket:
    """A connection to the peer, by TLS if it is called so. seconds: for either step.

    Raises OSError or UnicodeError where there is none; NoTls, or ConfigurationError for files that
    cannot be used.
    """
    context = client_context(peer) if peer.tls else None
    connection = socket.create_connection((peer.host, peer.port), seconds)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if context is None:
        return connection
    try:
        return context.wrap_socket(connection, server_hostname=context.server_name)
    except OSError as error:
        raise NoTls(context.trouble or "it closed the connection") from error
