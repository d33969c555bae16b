"""A network behind HTTP, for trying it: one small server of the standard library, which bounds what it takes."""

from __future__ import annotations

import contextlib
import io
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, ClassVar, TypeAlias

from winticket.ship.predicting import InputError, Predictor, TooManyInputsError
from winticket.ship.words import density_percent
from winticket.text import visible
from winticket.version import __version__

PATIENCE = 10.0
"""Seconds in which a client has to send its request, and as many to take the answer."""
LINGER = 5.0
"""Most seconds that what a client still sends is read and dropped, so that the answer reaches it."""
MOST_CLIENTS = 128
"""Clients served at once; others are told to come back."""
AT_ONCE = 4
"""Requests decoded, computed and encoded at once: a decoded body takes some thirty times its bytes."""
BODY_LIMIT = 1_000_000
"""Most bytes of a body, if nothing else is wanted."""
Content: TypeAlias = tuple[str, bytes]
"""An answer: its type and its bytes."""
_METHODS = {"/": ("GET", "HEAD"), "/health": ("GET", "HEAD"), "/predict": ("POST",)}


class _Refused(Exception):  # noqa: N818 - reads as what happened
    """A request that is not answered: the status, and why in a sentence."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers


class Server(ThreadingHTTPServer):
    """Serves a network until `shutdown`: POST /predict, GET /health and GET /, which says how to use it.

    predictor   computes the answers
    host, port  where to listen; port 0: a free one, see `url`
    body_limit  most bytes of a request's body; of more, the answer is 413
    patience    seconds in which a client has to send its request, and to take the answer

    Raises OSError if it cannot listen there.
    """

    daemon_threads = True
    request_queue_size = MOST_CLIENTS

    def __init__(
        self,
        predictor: Predictor,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        body_limit: int = BODY_LIMIT,
        patience: float = PATIENCE,
    ) -> None:
        self.predictor, self.body_limit, self.patience = predictor, body_limit, patience
        self.answered = 0
        self.computing = threading.Semaphore(AT_ONCE)
        self._clients = 0
        self._counting = threading.Lock()
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)

    @property
    def url(self) -> str:
        """Where it is reached."""
        host, port = self.server_address[0], self.server_address[1]
        name = host.decode() if isinstance(host, bytes | bytearray) else str(host)
        return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"

    def server_bind(self) -> None:
        """Bind, without asking the name server what this machine is called, as the base class does."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def count(self) -> None:
        """One more prediction was computed."""
        with self._counting:
            self.answered += 1

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a client in a thread; or tell it to come back, if there are too many."""
        if self._admitted(1):
            try:
                super().process_request(request, client_address)
                return
            except RuntimeError:  # no thread can be started
                self._admitted(-1)
        with contextlib.suppress(OSError):
            request.settimeout(1)
            request.sendall(
                b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
            )
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a client, and make room for the next one."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._admitted(-1)

    def _admitted(self, change: int) -> bool:
        """Count a client that comes (1) or leaves (-1); False, and nothing is counted, if there are too many."""
        with self._counting:
            if self._clients + change > MOST_CLIENTS:
                return False
            self._clients += change
            return True

    def server_close(self) -> None:
        """Listen no more, and let those who are being served have their answers, for up to two seconds."""
        super().server_close()
        end = time.monotonic() + 2
        while self._clients and time.monotonic() < end:
            time.sleep(0.02)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing is said of a client that is gone; our own errors are answered before they come here."""

    def health(self) -> dict[str, Any]:
        """What /health answers."""
        network = self.predictor.network
        kept, weights = network.kept()
        return {
            "status": "ok",
            "winticket": __version__,
            "network": title(self.predictor),
            "input": list(network.input_shape),
            "classes": self.predictor.classes,
            "weights": weights,
            "kept": kept,
            "computes": self.predictor.computes,
            "answered": self.answered,
        }


def title(predictor: Predictor) -> str:
    """The network in a few words, as its file says."""
    about, (kept, weights) = predictor.network.about, predictor.network.kept()
    names = [visible(about[key])[:80] for key in ("model", "data") if isinstance(about.get(key), str)]
    share = f", {density_percent(kept / weights)} of its weights" if weights else ""
    return (" for ".join(names) or "a network") + share


def usage(server: Server) -> str:
    """How to use the server, in plain text."""
    network, predictor = server.predictor.network, server.predictor
    size = 1
    for each in network.input_shape:
        size *= each
    numbers = ", ".join("0" for _ in range(min(size, 8))) + (f", ...  ({size} numbers)" if size > 8 else "")
    return f"""\
{title(predictor)}

POST /predict takes a JSON list: one input of shape {list(network.input_shape)}, nested or flat, or a list of inputs.
Inputs are {predictor.takes.rpartition(", [")[0]}. A body has at most {server.body_limit:,} bytes.

    curl {server.url}/predict -d '[{numbers}]'

For an input of zeros:

    python3 -c "print([0] * {size})" | curl {server.url}/predict -d @-

The answer has, for each input, "class", "index", "probability" and the "probabilities" of all classes.
GET /health says what is served.
"""


class _UntilDeadline(io.RawIOBase):
    """What a socket receives, until a moment: however slowly a client sends, it does not hold a thread for longer."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        super().__init__()
        self._connection, self._end = connection, time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    """One client, one request."""

    server: Server
    protocol_version = "HTTP/1.1"
    server_version = f"winticket/{__version__}"
    sys_version = ""
    unread = True
    """Whether a client may still be sending."""

    def setup(self) -> None:
        super().setup()
        self.rfile = io.BufferedReader(_UntilDeadline(self.connection, self.server.patience))

    def log_message(self, *_: Any) -> None:
        """Nothing: requests are counted, not logged."""

    def finish(self) -> None:
        super().finish()
        with contextlib.suppress(OSError):
            self._drop()

    def _drop(self) -> None:
        """Read and drop what is still coming: closing at once would reset the connection, and the answer be lost."""
        self.connection.shutdown(socket.SHUT_WR)
        end = time.monotonic() + min(LINGER, self.server.patience)
        while (left := end - time.monotonic()) > 0:
            self.connection.settimeout(left if self.unread else 0)
            if not self.connection.recv(1 << 16):
                return

    def _respond(self) -> None:
        """Answer the request, or say why not. An error while the answer is being sent only closes the connection."""
        status, headers = 200, {}
        try:
            content = self._route()
        except _Refused as refused:
            status, headers, content = refused.status, refused.headers, _error(str(refused))
        except TimeoutError:
            seconds = f"{self.server.patience:g} seconds"
            status, content = 408, _error(f"the request did not arrive within {seconds}")
        except Exception as error:  # noqa: BLE001 - an error of ours is an answer too
            status, content = 500, _error(f"the prediction failed: {type(error).__name__}")
        self._send(status, content, **headers)

    def _route(self) -> Content:
        path = self.path.partition("?")[0]
        methods = _METHODS.get(path)
        if methods is None:
            known = ", ".join(_METHODS)
            raise _Refused(404, f"there is nothing at {visible(path)[:80]}; there are {known}")
        if self.command not in methods:
            allowed = ", ".join(methods)
            raise _Refused(405, f"{path} takes {allowed}, not {visible(self.command)[:20]}", Allow=allowed)
        return self._ANSWERS[path](self)

    def _use(self) -> Content:
        return "text/plain; charset=utf-8", usage(self.server).encode()

    def _health(self) -> Content:
        return _json(self.server.health())

    def _predict(self) -> Content:
        body = self._body()
        with self.server.computing:
            try:
                answer = _json(self.server.predictor(body))
            except InputError as error:
                raise _Refused(413 if isinstance(error, TooManyInputsError) else 400, str(error)) from error
        self.server.count()
        return answer

    _ANSWERS: ClassVar[dict[str, Callable[[_Handler], Content]]] = {
        "/": _use,
        "/health": _health,
        "/predict": _predict,
    }

    def _length(self) -> int:
        """The length of the body, if it may come."""
        if self.headers.get("Transfer-Encoding") is not None:
            raise _Refused(411, "send the body whole, with Content-Length and without Transfer-Encoding")
        lengths = {value.strip() for value in self.headers.get_all("Content-Length") or ()}
        if not lengths:
            raise _Refused(411, "the request has no Content-Length, so it has no body")
        if len(lengths) > 1 or not re.fullmatch("[0-9]{1,18}", length := lengths.pop()):
            raise _Refused(400, "Content-Length is not one whole number")
        if int(length) > self.server.body_limit:
            limit = self.server.body_limit
            raise _Refused(
                413, f"the body has {int(length):,} bytes, and at most {limit:,} are taken; send fewer inputs"
            )
        return int(length)

    def _body(self) -> bytes:
        length = self._length()
        body = self.rfile.read(length)
        if len(body) < length:
            raise _Refused(400, f"the body ended after {len(body):,} of {length:,} bytes")
        self.unread = False
        return body

    def handle_expect_100(self) -> bool:
        """Whether a client that asks first may send its body."""
        try:
            if self.path.partition("?")[0] == "/predict" and self.command == "POST":
                self._length()
        except _Refused as refused:
            self._send(refused.status, _error(str(refused)))
            return False
        return super().handle_expect_100()

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """What the base class refuses, as broken request lines and huge headers, in our form."""
        self._send(int(code), _error(visible(message or self.responses.get(code, ("refused",))[0])[:200]))

    def _send(self, status: int, content: Content, **headers: str) -> None:
        """The answer; afterwards the connection is closed."""
        kind, body = content
        self.close_connection = True
        self.connection.settimeout(self.server.patience)
        self.send_response(status)
        fixed = {"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close"}
        for name, value in {**fixed, "X-Content-Type-Options": "nosniff", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _json(answer: dict[str, Any]) -> Content:
    """Raises ValueError for a number that JSON has not, as NaN."""
    return "application/json", json.dumps(answer, allow_nan=False).encode() + b"\n"


def _error(message: str) -> Content:
    return _json({"error": message})


for _method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"):
    setattr(_Handler, f"do_{_method}", _Handler._respond)
