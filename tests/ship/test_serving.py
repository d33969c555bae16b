"""The server, over real sockets: answers, limits, and clients that are broken, slow, hostile or many."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import shipped
from winticket.ship import Network, Operation, Preprocessing, Weight, predicting, run, serving
from winticket.ship.predicting import LARGEST_INPUT, MOST_PROBABILITIES, InputError, Predictor
from winticket.ship.serving import MOST_CLIENTS, Server

LIMIT = 20_000
PATIENCE = 1.0


@pytest.fixture(scope="module")
def network() -> Network:
    """A small network of images, with preprocessing and names of classes."""
    rng = np.random.default_rng(0)
    weight = Weight.of("fc", rng.standard_normal((3, 12)), rng.random((3, 12)) < 0.7)
    operations = (
        Operation("reshape", ("input",), "1", {"shape": [12]}),
        Operation("linear", ("1",), "2", tensors={"weight": weight}),
    )
    ready = Preprocessing(16.0, (0.3,), (0.4,))
    return Network((1, 3, 4), operations, ready, ("a", "b", "c"), {"model": "tiny", "data": "images"})


@contextlib.contextmanager
def running(predictor: Predictor, *, body_limit: int = LIMIT, patience: float = PATIENCE) -> Iterator[Server]:
    with Server(predictor, body_limit=body_limit, patience=patience) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield made
        finally:
            made.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def server(network: Network) -> Iterator[Server]:
    with running(Predictor(network)) as made:
        yield made


def ask(
    server: Server, method: str, path: str, body: Any = None, **headers: str
) -> tuple[int, Any, dict[str, str]]:
    client = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=20)
    client.request(method, path, body, headers)
    answer = client.getresponse()
    content = answer.read()
    client.close()
    kind = answer.headers["Content-Type"]
    return answer.status, json.loads(content) if "json" in kind and content else content, dict(answer.headers)


def raw(server: Server, *pieces: bytes | float, end: bool = True) -> bytes:
    """All that the server sends to a client that sends these pieces, and waits so many seconds in between."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as client:
        for piece in pieces:
            if isinstance(piece, float):
                time.sleep(piece)
            else:
                client.sendall(piece)
        if end:
            with contextlib.suppress(OSError):  # the server may have closed the connection already
                client.shutdown(socket.SHUT_WR)
        received = b""
        while part := client.recv(65536):
            received += part
        return received


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def head(length: object, method: str = "POST /predict") -> bytes:
    return f"{method} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()


def still_serves(server: Server) -> bool:
    return ask(server, "POST", "/predict", json.dumps([0] * 12))[0] == 200


def test_predictions_are_the_networks(server: Server, network: Network) -> None:
    """Inputs are raw; one or several, nested or flat."""
    x = np.random.default_rng(1).integers(0, 17, (5, 1, 3, 4))
    assert network.preprocessing is not None
    logits = run(network, network.preprocessing.apply(x), dtype=np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for body in (x, x.reshape(5, 12)):
        code, answer, headers = ask(server, "POST", "/predict", json.dumps(body.tolist()))
        assert code == 200
        assert headers["Content-Type"] == "application/json"
        assert answer["classes"] == ["a", "b", "c"]
        predictions = answer["predictions"]
        np.testing.assert_allclose([p["probabilities"] for p in predictions], shares, atol=1e-5)
        assert [p["index"] for p in predictions] == logits.argmax(1).tolist()
        assert [p["class"] for p in predictions] == ["abc"[n] for n in logits.argmax(1)]
        assert all(p["probability"] == max(p["probabilities"]) for p in predictions)
    for body in (x[0], x[0].reshape(12)):
        one = ask(server, "POST", "/predict", json.dumps(body.tolist()))[1]
        assert one["predictions"] == predictions[:1]


def test_health_and_use(server: Server) -> None:
    code, health, _ = ask(server, "GET", "/health")
    assert code == 200
    assert health["status"] == "ok"
    assert health["network"].startswith("tiny for images, ")
    assert health["input"] == [1, 3, 4]
    assert health["kept"] < health["weights"] == 36
    before = health["answered"]
    code, use, headers = ask(server, "GET", "/")
    assert (code, headers["Content-Type"]) == (200, "text/plain; charset=utf-8")
    assert f"curl {server.url}/predict -d '[0, 0, 0, 0, 0, 0, 0, 0, ...  (12 numbers)]'" in use.decode()
    assert "raw values, as pixels" in use.decode()
    assert still_serves(server)
    assert ask(server, "GET", "/health?x=1")[1]["answered"] == before + 1
    code, nothing, headers = ask(server, "HEAD", "/health")
    assert (code, nothing) == (200, b"")
    assert int(headers["Content-Length"]) > 100


@pytest.mark.parametrize(
    ("method", "path", "code", "message"),
    [
        ("GET", "/nowhere", 404, "there is nothing at /nowhere; there are /, /health, /predict"),
        ("POST", "/predict/", 404, "nothing at /predict/"),
        ("POST", "/../../etc/passwd", 404, "nothing at"),
        ("GET", "/predict", 405, "/predict takes POST, not GET"),
        ("PUT", "/predict", 405, "/predict takes POST, not PUT"),
        ("POST", "/health", 405, "/health takes GET, HEAD, not POST"),
        ("DELETE", "/", 405, "/ takes GET, HEAD, not DELETE"),
        ("BREW", "/predict", 501, "Unsupported method"),
    ],
)
def test_unknown_paths_and_wrong_methods(
    server: Server, method: str, path: str, code: int, message: str
) -> None:
    got, answer, headers = ask(server, method, path, b"[1]")
    assert got == code
    assert message in answer["error"]
    if code == 405:
        assert headers["Allow"] in ("POST", "GET, HEAD")


REFUSED = {
    b"": "begins with 0 opening brackets; send a JSON list: one input of shape [1, 3, 4] or 12 numbers, or a list",
    b"{}": "begins with 0 opening brackets",
    b"7": "begins with 0 opening brackets",
    b"[" * 5: "begins with 5 opening brackets",
    b"[" * 15_000: "begins with 15000 opening brackets",
    b"[1," + b"[" * 15_000: "Expected `float`, got `array`",
    b"[1, 2": "Input data was truncated",
    b"[]": "holds numbers of shape [1, 0]",
    b"[[]]": "holds numbers of shape [1, 0]",
    b"[1, 2, 3]": "holds numbers of shape [1, 3]",
    b"[[1, 2], [3]]": "lists of the body have different lengths",
    b"[NaN, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]": "JSON is malformed",
    b"[Infinity]": "JSON is malformed",
    b"[1e39, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]": "too large for float32",
    b"[1e999, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]": "out of range",
    b'["1", 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]': "Expected `float`, got `str` - at `$[0]`",
    b"[true, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]": "Expected `float`, got `bool` - at `$[0]`",
    b"[null]": "Expected `float`, got `null`",
    b"[1, 2] x": "JSON is malformed",
    b"[\xff\xfe]": "JSON is malformed",
    b'["\xff"]': "is not what is needed",
    b"inputs=1": "begins with 0 opening brackets",
}


@pytest.mark.parametrize("body", REFUSED, ids=lambda body: repr(body[:20]))
def test_bodies_that_are_no_inputs(server: Server, body: bytes) -> None:
    code, answer, _ = ask(server, "POST", "/predict", body)
    assert code == 400
    assert REFUSED[body] in answer["error"]
    assert len(answer["error"]) < 400


_PLAIN = st.floats() | st.integers() | st.text() | st.none()
_JSON = st.recursive(_PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
_NUMBERS = st.integers(-(10**30), 10**30) | st.floats(-3.4e38, 3.4e38)
_INPUTS = st.lists(_NUMBERS, min_size=12, max_size=12)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=st.binary(max_size=60) | (_JSON | _INPUTS).map(lambda value: json.dumps(value).encode()))
def test_any_body_is_predicted_or_refused(server: Server, body: bytes) -> None:
    try:
        answer = server.predictor(body)
    except InputError:
        return
    assert all(abs(sum(p["probabilities"]) - 1) < 1e-5 for p in answer["predictions"])
    json.dumps(answer, allow_nan=False)


@pytest.mark.parametrize("compiled", [True, False])
def test_outputs_that_overflow_are_refused_by_number(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """3e38 is a float32 and the sum of some of them is none."""
    if not compiled:
        monkeypatch.setattr(predicting, "missing", "no compiler")
    sums = Operation("linear", ("input",), "1", tensors={"weight": Weight.of("fc", np.ones((2, 12)))})
    with running(Predictor(Network((12,), (sums,)))) as server:
        code, answer, _ = ask(server, "POST", "/predict", json.dumps([[1] * 12, [3e38] * 12, [0] * 12]))
        assert code == 400
        assert "outputs for input 1, counted from 0, are not finite" in answer["error"]
        assert still_serves(server)


def wide(classes: int, inputs: int = 1) -> Network:
    fc = {"weight": Weight.of("fc", np.zeros((classes, inputs)))}
    return Network((inputs,), (Operation("linear", ("input",), "1", tensors=fc),))


def test_the_answer_is_bounded_as_the_body_is() -> None:
    """Two bytes of a body ask for a thousand probabilities here."""
    most = MOST_PROBABILITIES // 1000
    with running(Predictor(wide(1000))) as server:
        code, answer, _ = ask(server, "POST", "/predict", json.dumps([[0]] * (most + 1)))
        assert code == 413
        assert (
            f"the answer to {most + 1} inputs would have {1000 * (most + 1):,} probabilities"
            in answer["error"]
        )
        assert f"send at most {most} inputs at once" in answer["error"]
        code, answer, _ = ask(server, "POST", "/predict", json.dumps([[0]] * most))
        assert (code, len(answer["predictions"])) == (200, most)


def test_networks_with_huge_inputs_or_outputs_are_refused_before_anything_is_computed() -> None:
    """A compact file of some hundred bytes may ask for them."""
    mean = Operation("mean", ("input",), "1", {"axes": [1, 2]})
    with pytest.raises(
        ValueError, match=r"takes inputs of 268,435,456 numbers and has 4 classes; at most 4,194,304"
    ):
        Predictor(Network((4, 1 << 13, 1 << 13), (mean,)))
    with pytest.raises(ValueError, match="has 262,145 classes"):
        Predictor(wide(MOST_PROBABILITIES + 1))


def test_kernels_are_measured_on_few_examples_if_inputs_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[tuple[int, ...], np.dtype[Any]]] = []

    def model(network: Network, *, raw: bool, example: Any) -> Any:
        seen.append((example.shape, example.dtype))
        return lambda x: np.zeros((len(x), 2))

    monkeypatch.setattr(predicting, "missing", "")
    monkeypatch.setattr(predicting, "SparseModel", model)
    mean = Operation("mean", ("input",), "1", {"axes": [1]})
    for size in (10, 1 << 18, LARGEST_INPUT // 2):
        Predictor(Network((2, size), (mean,), Preprocessing(255.0, (0.5, 0.5), (0.3, 0.3))))
    assert [shape for shape, _ in seen] == [(64, 2, 10), (8, 2, 1 << 18), (1, 2, LARGEST_INPUT // 2)]
    assert {dtype for _, dtype in seen} == {np.dtype(np.float32)}


def test_lengths_that_are_none(server: Server) -> None:
    for length in ("-1", "+5", "5_0", "0x10", "1e3", "", "9" * 30, "12, 12"):
        assert status(raw(server, head(length))) == 400, length
    twice = b"POST /predict HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\n[1]"
    assert status(raw(server, twice)) == 400
    assert status(raw(server, b"POST /predict HTTP/1.1\r\n\r\n")) == 411
    chunked = b"POST /predict HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n[1]\r\n0\r\n\r\n"
    assert status(raw(server, chunked)) == 411
    both = b"POST /predict HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    assert status(raw(server, both)) == 411
    assert still_serves(server)


def test_bodies_that_end_early_or_go_on(server: Server) -> None:
    body = json.dumps([0] * 12).encode()
    answer = raw(server, head(len(body) + 7), body)
    assert status(answer) == 400
    assert f"the body ended after {len(body)} of {len(body) + 7} bytes".encode() in answer
    assert status(raw(server, head(len(body)), body + b"GET / HTTP/1.1\r\n\r\n" * 50)) == 200
    assert status(raw(server, head(len(body) - 3), body)) == 400
    assert still_serves(server)


def test_a_body_over_the_limit_is_refused_and_the_answer_arrives(server: Server) -> None:
    """Also if it is sent whole before the answer is read, and if the client asks before it sends."""
    for size in (LIMIT + 1, 30_000_000):
        code, answer, _ = ask(server, "POST", "/predict", b"0" * size)
        assert code == 413
        assert f"the body has {size:,} bytes, and at most {LIMIT:,} are taken" in answer["error"]
    exact = b"[" + b" " * (LIMIT - 25) + b"0," * 11 + b"0]"
    assert len(exact) == LIMIT
    assert ask(server, "POST", "/predict", exact)[0] == 200
    asking = head(10**9).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    assert status(raw(server, asking, end=False)) == 413
    asking = head(25).replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")
    answer = raw(server, asking, 0.1, b"[" + b"0," * 11 + b"0]", b" ")
    assert status(answer) == 100
    assert b"HTTP/1.1 200 OK" in answer


def test_slow_clients_are_cut_off(server: Server) -> None:
    """Whether they send nothing, or a byte now and then, which would renew a plain timeout for ever."""
    start = time.monotonic()
    assert raw(server, b"POST /pre", end=False) == b""
    answer = raw(server, head(1000), b"[", end=False)
    assert status(answer) == 408
    assert b"did not arrive within 1 seconds" in answer
    assert time.monotonic() - start < 10 * PATIENCE
    drip: list[bytes | float] = [piece for _ in range(30) for piece in (b"0", 0.1)]
    start = time.monotonic()
    with contextlib.suppress(ConnectionError):  # if it is closed while a byte is on its way
        assert status(raw(server, head(1000), *drip)) == 408
    assert time.monotonic() - start < 10
    assert still_serves(server)


def test_broken_requests(server: Server) -> None:
    for request, code in (
        (b"\x00\x01\x02\x03\r\n\r\n", 400),
        (b"GET\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"GET / FTP\r\n\r\n", 400),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 70_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"A: a\r\n" * 200 + b"\r\n", 431),
    ):
        answer = raw(server, request)
        # What is older than HTTP/1.0 gets an answer without a head.
        got = status(answer) if answer.startswith(b"HTTP/") else None
        assert got == code or (got is None and b'"error"' in answer), (request[:30], answer[:100])
    assert raw(server, b"") == b""
    assert still_serves(server)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(noise=st.binary(max_size=200), where=st.integers(0, 100))
def test_noise_ends_no_server(server: Server, noise: bytes, where: int) -> None:
    request = head(25) + b"[" + b"0," * 11 + b"0]"
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):  # not if the connection is refused
        raw(server, request[:where] + noise + request[where:])
    assert still_serves(server)


def test_fifty_clients_at_once_get_their_own_answers(server: Server, network: Network) -> None:
    x = np.random.default_rng(2).integers(0, 17, (50, 4, 12))
    assert network.preprocessing is not None
    logits = run(network, network.preprocessing.apply(x.reshape(200, 1, 3, 4))).reshape(50, 4, 3)
    gate = threading.Barrier(50)

    def client(number: int) -> None:
        gate.wait()
        for turn in range(4):
            code, answer, _ = ask(server, "POST", "/predict", json.dumps(x[number, turn].tolist()))
            assert code == 200
            (prediction,) = answer["predictions"]
            right = np.exp(logits[number, turn]) / np.exp(logits[number, turn]).sum()
            np.testing.assert_allclose(prediction["probabilities"], right, atol=1e-5)

    with ThreadPoolExecutor(50) as pool:
        assert len(list(pool.map(client, range(50)))) == 50


def test_clients_beyond_the_limit_are_told_to_come_back(server: Server) -> None:
    held = [socket.create_connection(("127.0.0.1", server.server_port)) for _ in range(MOST_CLIENTS)]
    try:
        end = time.monotonic() + 5 * PATIENCE
        answers = []
        while time.monotonic() < end and 503 not in answers:
            with contextlib.suppress(ConnectionError, IndexError):
                answers.append(status(raw(server, head(25), b"[" + b"0," * 11 + b"0]")))
        assert 503 in answers
    finally:
        for client in held:
            client.close()
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            assert still_serves(server)
            return
        except (AssertionError, KeyError, TypeError, ConnectionError, http.client.HTTPException):
            time.sleep(0.1)
    pytest.fail("it serves no more")


def test_an_error_of_ours_is_an_answer(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Predictor(network)
    monkeypatch.setattr(predictor, "_logits", lambda x: 1 / 0)
    with running(predictor) as server:
        code, answer, _ = ask(server, "POST", "/predict", json.dumps([0] * 12))
        assert (code, answer) == (500, {"error": "the prediction failed: ZeroDivisionError"})
        monkeypatch.setattr(server, "predictor", lambda body: {"predictions": [float("nan")]})
        code, answer, _ = ask(server, "POST", "/predict", json.dumps([0] * 12))
        assert (code, answer) == (500, {"error": "the prediction failed: ValueError"})


def test_an_error_while_an_answer_is_sent_is_not_sent_into_it(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that takes its answer too slowly gets a part of it, and nothing else."""
    text = "x" * 20_000_000  # more than a socket holds
    monkeypatch.setattr(serving, "usage", lambda server: text)
    with running(Predictor(network), patience=0.8) as server:
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as client:
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            received = client.recv(4096)
            time.sleep(1.2)
            with contextlib.suppress(ConnectionError):
                while part := client.recv(1 << 20):
                    received += part
        assert status(received) == 200
        body = received.partition(b"\r\n\r\n")[2]
        assert len(body) < len(text)
        assert set(body) == {ord("x")}
        assert still_serves(server)


@pytest.mark.parametrize("name", ["lenet-300-100", "signal", "conv-2"])
def test_without_compiled_kernels_numpy_computes_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network = shipped.network(name)
    body = json.dumps(shipped.examples(network, 3).tolist()).encode()
    first = Predictor(network)
    monkeypatch.setattr(predicting, "missing", "no compiler")
    second = Predictor(network)
    assert second.computes.startswith("numpy")
    one, other = ([p["probabilities"] for p in p(body)["predictions"]] for p in (first, second))
    np.testing.assert_allclose(one, other, atol=1e-4)


def test_networks_without_classes_are_refused() -> None:
    fc = {"weight": Weight.of("fc", np.ones((1, 2)))}
    with pytest.raises(ValueError, match=r"two or more, but the network gives outputs of shape \[1\]"):
        Predictor(Network((2,), (Operation("linear", ("input",), "1", tensors=fc),)))
