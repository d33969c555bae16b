"""An object store on this machine: moto's server, and before it a proxy that counts, fails, and forgets answers."""

from __future__ import annotations

import contextlib
import http.client
import logging
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
INTERNAL = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"
DENIED = b"<Error><Code>%s</Code><Message>You may not.</Message></Error>"


class Proxy:
    """Forwards requests to `target`, unless `fault` says otherwise.

    `fault` is called with the method, the path and the number of the request, and returns what happens to it:

    None          it is forwarded
    "503", "500"  the answer that a server under load gives
    "drop"        the connection is closed before anything is done
    "lose"        it is done, and the connection is closed before the answer
    "hang"        no answer for a second
    "deaf"        it is done without its condition
    other         a 403 with this code
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.requests: list[tuple[str, str]] = []
        self.fault: Callable[[str, str, int], str | None] = lambda method, path, number: None
        self.one_write = threading.Lock()  # moto looks whether a key exists, and then writes
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                proxy.handle(self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append((request.command, request.path))
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        fault = self.fault(request.command, request.path, len(self.requests))
        if fault in ("503", "500"):
            self.answer(request, int(fault), SLOW_DOWN if fault == "503" else INTERNAL)
        elif fault == "hang":
            time.sleep(1.0)
            request.close_connection = True
        elif fault == "drop":
            request.close_connection = True
        elif fault in (None, "lose", "deaf"):
            status, headers, answer = self.forward(request, body, deaf=fault == "deaf")
            if fault == "lose":
                request.close_connection = True
            else:
                self.answer(request, status, answer, headers)
        else:
            assert fault is not None
            self.answer(request, 403, DENIED % fault.encode())

    def forward(
        self, request: BaseHTTPRequestHandler, body: bytes, *, deaf: bool
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        headers = {
            name: value for name, value in request.headers.items() if not (deaf and name == "If-None-Match")
        }
        line = http.client.HTTPConnection(*self.target, timeout=30)
        with contextlib.closing(line), self.one_write:
            line.request(request.command, request.path, body=body, headers=headers)
            answer = line.getresponse()
            return answer.status, answer.getheaders(), answer.read()

    @staticmethod
    def answer(
        request: BaseHTTPRequestHandler,
        status: int,
        body: bytes,
        headers: list[tuple[str, str]] | None = None,
    ) -> None:
        request.send_response(status)
        for name, value in headers or []:
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server"):
                request.send_header(name, value)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)

    def count(self, method: str | None = None) -> int:
        return sum(method in (None, one) for one, _ in self.requests)

    def forget(self) -> None:
        self.requests.clear()
        self.fault = lambda method, path, number: None

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@contextlib.contextmanager
def served() -> Iterator[tuple[str, int]]:
    """Host and port of an object store with the bucket `bucket`."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        line = http.client.HTTPConnection(host, port, timeout=30)
        with contextlib.closing(line):
            line.request(
                "PUT", "/bucket", headers={"Authorization": "AWS4-HMAC-SHA256 Credential=a/b/us-east-1/s3/c"}
            )
            assert line.getresponse().status == 200
        yield host, port
    finally:
        server.stop()
