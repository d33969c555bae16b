"""`winticket serve` as people start and stop it."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import shipped
from winticket.cli import app
from winticket.ship import load, run, save


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "signal.safetensors"
    save(shipped.network("signal"), path, values="fp16")
    return path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
def test_it_serves_a_compact_file_until_it_is_stopped(file: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "winticket", "serve", str(file), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "computed by" in process.stdout.readline()
        found = re.match(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert found, process.stderr.read()
        network = load(file)
        x = shipped.examples(network, 2)
        with urllib.request.urlopen(
            f"{found[0]}/predict", json.dumps(x.tolist()).encode(), timeout=20
        ) as answer:
            predictions = json.load(answer)["predictions"]
        process.send_signal(number)
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, output, errors.strip()) == (0, "", "stopped; 1 predictions were answered")
    assert network.preprocessing is not None
    logits = run(network, network.preprocessing.apply(x))
    np.testing.assert_allclose([p["probabilities"] for p in predictions], np.exp(logits), atol=1e-4)


def test_what_cannot_be_served_is_refused(file: Path, tmp_path: Path) -> None:
    def refused(*words: str) -> str:
        result = CliRunner().invoke(app, ["serve", *words], env={"COLUMNS": "300"})
        assert result.exit_code == 2, result.output
        return " ".join(result.output.split())

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"port {port} is in use; choose another one with --port, or 0" in refused(
            str(file), "--port", port
        )
    assert "port is 65536; it must be 0 to 65535" in refused(str(file), "--port", "65536")
    assert "body-limit is 0 MB; it must be 0.001 to 1000" in refused(str(file), "--body-limit", "0")
    assert "cannot listen at 192.0.2.1, port 0" in refused(str(file), "--host", "192.0.2.1", "--port", "0")
    assert "there is no ticket file at" in refused(str(tmp_path / "none.safetensors"))
    assert "nowhere" in refused(str(tmp_path / "nowhere"))
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(file.read_bytes()[:-3])
    assert "broken.safetensors is " in refused(str(broken))
