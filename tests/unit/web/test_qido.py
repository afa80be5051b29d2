"""How many instances a DICOMweb service has, asked of a small server that answers as told."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from dicom_node.domain.errors import PeerError
from dicom_node.web.qido import Service, count_instances

STUDY, SERIES = "1.2.3", "1.2.3.4"
Answer = Callable[[str, dict[str, list[str]]], tuple[int, object]]


@pytest.fixture
def served() -> Iterator[Callable[[Answer], Service]]:
    """served(answer) -> Service; answer(path, query) -> (status, JSON value or bytes)."""
    servers = []

    def start(answer: Answer) -> Service:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                if self.headers.get("Authorization") not in (None, "Bearer secret"):
                    self.send_error(401)
                    return
                status, value = answer(parts.path, parse_qs(parts.query))
                body = value if isinstance(value, bytes) else json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/dicom+json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return Service(url=f"http://127.0.0.1:{server.server_port}/dicom-web/", token="secret")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def attribute(tag: str, value: object) -> dict[str, object]:
    return {tag: {"vr": "UI", "Value": [value]}}


def count(service: Service) -> int | None:
    return count_instances(service, study_uid=STUDY, series_uid=SERIES)


def test_a_service_that_counts_is_believed(served) -> None:
    asked = []

    def answer(path, query):
        asked.append((path, query))
        return 200, [attribute("0020000E", SERIES) | attribute("00201209", 93)]

    assert count(served(answer)) == 93
    assert asked == [
        (
            f"/dicom-web/studies/{STUDY}/series",
            {"SeriesInstanceUID": [SERIES], "includefield": ["00201209"]},
        )
    ]


def test_a_service_that_does_not_count_is_listed_page_by_page(served) -> None:
    def answer(path, query):
        if path.endswith("/series"):
            return 200, [attribute("0020000E", SERIES)]
        start = int(query["offset"][0])
        return 200, [attribute("00080018", f"1.{n}") for n in range(start, min(start + 40, 93))]

    assert count(served(answer)) == 93


def test_a_service_that_ignores_offsets_is_not_listed_for_ever(served) -> None:
    page = [attribute("00080018", f"1.{n}") for n in range(7)]
    assert count(served(lambda path, _: (200, [] if path.endswith("/series") else page))) == 7


def test_a_count_of_another_series_is_not_taken(served) -> None:
    def answer(path, _query):
        if path.endswith("/series"):
            return 200, [attribute("0020000E", "9.9") | attribute("00201209", 5)]
        return 204, b""

    assert count(served(answer)) is None


@pytest.mark.parametrize(
    ("status", "value", "said"),
    [
        (401, [], "HTTP status 401"),
        (500, [], "HTTP status 500"),
        (200, b"<html>", "not JSON"),
        (200, {"no": "list"}, "not a list"),
    ],
)
def test_what_is_no_answer_is_an_error_in_words(served, status, value, said) -> None:
    with pytest.raises(PeerError, match=said):
        count(served(lambda _path, _query: (status, value)))


def test_a_service_that_is_not_there_is_an_error_in_words(free_port) -> None:
    with pytest.raises(PeerError, match="ConnectError"):
        count(Service(url=f"http://127.0.0.1:{free_port()}/dicom-web"))
