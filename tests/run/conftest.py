"""Stores for these tests: an object store is started once per session, when the first test asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from winticket.run import Store

from .buckets import Proxy, served

SECRET = "planted-secret-of-the-account"


@pytest.fixture(scope="session")
def object_store() -> Iterator[tuple[str, int]]:
    with served() as target:
        yield target


@pytest.fixture(scope="session")
def one_proxy(object_store: tuple[str, int]) -> Iterator[Proxy]:
    proxy = Proxy(object_store)
    yield proxy
    proxy.close()


@pytest.fixture
def proxy(one_proxy: Proxy, s3: str, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """The way to the object store for this test; it counts from nought."""
    one_proxy.forget()
    monkeypatch.setenv("AWS_ENDPOINT_URL", one_proxy.url)
    return one_proxy


@pytest.fixture
def s3(object_store: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> str:
    """An address in the object store under which there is nothing, with the environment to reach it."""
    host, port = object_store
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "planted-name-of-the-account",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/nowhere",
        "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
    }.items():
        monkeypatch.setenv(name, value)
    return f"s3://bucket/{uuid4()}/runs"


@pytest.fixture(params=["local", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a new store can be, in each kind of file system."""
    if request.param == "s3":
        return str(request.getfixturevalue("s3"))
    return str(tmp_path / "runs") if request.param == "local" else f"memory://{uuid4()}/runs"


@pytest.fixture
def anywhere(place: str) -> Store:
    return Store(place)
