"""The fault proxy: passes everything on, until it does not."""

import contextlib
import socket
import threading

import pytest

from dicom_node.testing.proxy import Fault, FaultProxy


@pytest.fixture
def echo():
    """The address of a server that returns what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def talk(connection):
        with connection:
            while data := connection.recv(4096):
                connection.sendall(data)

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=swallow, args=(connection,), daemon=True).start()

    def swallow(connection):
        try:
            talk(connection)
        except OSError:
            return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(5)


def dial(proxy):
    return socket.create_connection(("127.0.0.1", proxy.port), 10)


def read_past(proxy, data):
    """Send, and read until the connection ends or breaks."""
    with dial(proxy) as client:
        client.sendall(data)
        while client.recv(4096):
            pass


def talk(proxy, data):
    """Send, and read until as much came back or the connection ended."""
    with dial(proxy) as client:
        client.sendall(data)
        back = b""
        while len(back) < len(data) and (part := client.recv(4096)):
            back += part
        return back


def test_without_a_fault_all_bytes_pass(echo):
    with FaultProxy(echo) as proxy:
        assert talk(proxy, b"a" * 50_000) == b"a" * 50_000
        assert proxy.connections == 1
        assert proxy.passed[0] == 50_000


def test_a_connection_is_cut_after_so_many_bytes(echo):
    with FaultProxy(echo, fault=Fault(cut_after_bytes=1000)) as proxy:
        with contextlib.suppress(ConnectionResetError):
            talk(proxy, b"a" * 5000)
        assert proxy.passed[0] == 1000
        proxy.fault = Fault()
        assert talk(proxy, b"b" * 5000) == b"b" * 5000


def test_answers_can_be_cut_while_requests_pass(echo):
    with FaultProxy(echo, fault=Fault(cut_after_bytes=10, of_answers=True)) as proxy:
        assert talk(proxy, b"a" * 100) == b"a" * 10
        assert proxy.passed == [100, 10]


def test_a_reset_is_seen_as_a_reset(echo):
    fault = Fault(cut_after_bytes=10, reset=True)
    with FaultProxy(echo, fault=fault) as proxy, pytest.raises(ConnectionResetError):
        read_past(proxy, b"a" * 100)


def test_a_refusing_proxy_closes_at_once(echo):
    with FaultProxy(echo, fault=Fault(refuse=True)) as proxy:
        with dial(proxy) as client:
            assert client.recv(1) == b""
        assert proxy.passed == [0, 0]


def test_a_stalled_connection_stays_open_and_gives_nothing(echo):
    with (
        FaultProxy(echo, fault=Fault(cut_after_bytes=10, stall=True)) as proxy,
        dial(proxy) as client,
    ):
        client.sendall(b"a" * 100)
        assert client.recv(100) == b"a" * 10
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_a_dead_target_is_seen_as_a_closed_connection():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        address = gone.getsockname()
    with FaultProxy(address) as proxy, pytest.raises(ConnectionResetError):
        read_past(proxy, b"a")
