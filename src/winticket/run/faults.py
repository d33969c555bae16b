"""What an error of a remote file system means: nothing is there, try again, or give up and say what to do.

The libraries of object stores raise dozens of classes for the same few facts. They are judged by name and by the codes
of the answer, so that no such library has to be imported for it.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import SystemRandom
from typing import Any, Literal, TypeVar

from winticket.run.errors import StoreError
from winticket.text import hide, secrets_of

T = TypeVar("T")
Meaning = Literal[
    "missing", "exists", "empty", "passing", "unknown host", "no bucket", "denied", "region", "other"
]

TRIES = 10
SECONDS = 60.0  # after which an error that passes is no longer waited out
FIRST_SECONDS = 10.0  # the same, if the address has never answered: it may be wrong
FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 10.0
_CHANCE = SystemRandom()  # pauses differ between processes, and the generators of trainings are left alone


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_PASSING_CODES = _words(
    "SlowDown ServiceUnavailable InternalError RequestTimeout RequestTimeoutException Throttling ThrottlingException "
    "RequestLimitExceeded TooManyRequests BandwidthLimitExceeded OperationAborted ConditionalRequestConflict "
    "408 409 429 500 502 503 504 509"
)
_DENIED_CODES = _words(
    "AccessDenied AllAccessDisabled AccountProblem InvalidAccessKeyId SignatureDoesNotMatch InvalidSecurity "
    "ExpiredToken InvalidToken TokenRefreshRequired RequestTimeTooSkewed NotSignedUp Forbidden Unauthorized "
    "401 403"
)
_REGION_CODES = _words(
    "PermanentRedirect TemporaryRedirect AuthorizationHeaderMalformed IllegalLocationConstraintException "
    "301 307"
)
# Names of classes, theirs or of a class that they inherit from, in botocore, aiohttp, requests, google-auth and fsspec.
_PASSING_CLASSES = _words(
    "HTTPClientError EndpointConnectionError ConnectionClosedError IncompleteReadError ResponseStreamingError "
    "ResponseParserError ClientConnectionError ClientPayloadError ServerDisconnectedError FSTimeoutError "
    "ChunkedEncodingError ConnectTimeout ReadTimeout TransportError ChecksumError"
)
_DENIED_CLASSES = _words(
    "NoCredentialsError PartialCredentialsError CredentialRetrievalError TokenRetrievalError SSOError "
    "UnauthorizedSSOTokenError ProfileNotFound DefaultCredentialsError RefreshError NoAuthTokenError "
    "PermissionError"
)
_FINAL_CLASSES = _words("SSLCertVerificationError ClientConnectorCertificateError ValueError TypeError")
_PASSING_NUMBERS = frozenset(
    getattr(errno, name)
    for name in _words(
        "ECONNRESET ECONNREFUSED ECONNABORTED EPIPE ETIMEDOUT ENETUNREACH EHOSTUNREACH ENETDOWN EAGAIN EBUSY EREMOTEIO"
    )
    if hasattr(errno, name)
)
_REMEDIES: Mapping[str, str] = {
    "unknown host": "check the address, and the variable AWS_ENDPOINT_URL if it is set",
    "no bucket": "make the bucket first, or check the store's address and the account",
    "denied": "check the credentials and what they permit: reading, writing, listing and removing "
    "(s3: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; gs: GOOGLE_APPLICATION_CREDENTIALS)",
    "region": "set AWS_DEFAULT_REGION to the bucket's region, and AWS_ENDPOINT_URL to its server if it is not Amazon's",
    "other": "check the store's address and the settings of its file system",
}
_SECRET_NAME = re.compile(
    r"secret|token|password|passwd|access_?key|username|credential|(?:^|_)key$", re.IGNORECASE
)
_SETTINGS = ("AWS_", "FSSPEC_", "GOOGLE_", "GCSFS_", "S3_")


@dataclass(frozen=True)
class Fault:
    """The meaning of an error, and what its sender said."""

    meaning: Meaning
    said: str


def judge(error: BaseException) -> Fault:
    """What an error that a remote file system raised means."""
    chain = list(_chain(error))
    said = _said(chain)
    for one in chain:
        code = _code(one)
        for meaning, codes in (
            ("no bucket", ("NoSuchBucket",)),
            ("empty", ("InvalidRange", "416")),
            ("denied", _DENIED_CODES),
            ("region", _REGION_CODES),
            ("passing", _PASSING_CODES),
        ):
            if code in codes:
                return Fault(meaning, said)  # type: ignore[arg-type]
    return Fault(_by_class(chain), said)


def _by_class(chain: list[BaseException]) -> Meaning:
    classes = {kind.__name__ for one in chain for kind in type(one).__mro__}
    if any(isinstance(one, FileExistsError) for one in chain):
        return "exists"
    if any(isinstance(one, (FileNotFoundError, NotADirectoryError)) for one in chain):
        return "missing"
    if classes & _DENIED_CLASSES or _said_forbidden(chain[0]):
        return "denied"
    if any(isinstance(one, socket.gaierror) for one in chain) or "ClientConnectorDNSError" in classes:
        return "unknown host"
    if classes & _FINAL_CLASSES:
        return "other"
    numbers = {one.errno for one in chain if isinstance(one, OSError)}
    if (
        classes & _PASSING_CLASSES
        or any(isinstance(one, (TimeoutError, ConnectionError, EOFError)) for one in chain)
        or numbers & _PASSING_NUMBERS
    ):
        return "passing"
    return "other"


def _said_forbidden(error: BaseException) -> bool:
    """gcsfs says so in words alone."""
    return isinstance(error, OSError) and str(error).startswith("Forbidden:")


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and those that led to it, outermost first."""
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def _code(error: BaseException) -> str | None:
    """The code in an answer: botocore's by name, gcsfs's by number."""
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        about: Any = response.get("Error")
        code = about.get("Code") if isinstance(about, Mapping) else None
        if code in (None, "", "Unknown"):
            metadata: Any = response.get("ResponseMetadata")
            code = metadata.get("HTTPStatusCode") if isinstance(metadata, Mapping) else None
        return str(code)
    code = getattr(error, "code", None)
    return str(code) if isinstance(code, (int, str)) else None


_LONGEST = 300
"""Characters of a library's message that are shown."""


def _said(chain: list[BaseException]) -> str:
    """The first text in the chain, in one line."""
    for one in chain:
        text = " ".join(str(one).split())
        if text:
            return f"{type(one).__name__}: {text}"
    return type(chain[0]).__name__


def secrets_around(settings: Mapping[str, Any]) -> list[str]:
    """Values that no message may show: credentials in the environment and in a file system's settings, longest first.

    >>> secrets_around({"key": "AKIA1234", "client_kwargs": {"endpoint_url": "http://me:word@host"}})[-1]
    'word'
    """
    found: set[str] = set()

    def collect(name: str, value: object) -> None:
        if isinstance(value, Mapping):
            for inner, item in value.items():
                collect(str(inner), item)
        elif isinstance(value, str):
            found.update(secrets_of(value))
            if _SECRET_NAME.search(name):
                found.add(value)

    for name, value in os.environ.items():
        if name.startswith(_SETTINGS):
            collect(name, value)
    collect("", settings)
    return sorted((one for one in found if len(one) >= 4), key=lambda one: (-len(one), one))


@dataclass
class Asking:
    """Asks a remote file system, waits out what passes, and says in a sentence what does not.

    where     the store's address
    settings  the file system's settings, of which no credential may appear in a message
    """

    where: str
    settings: Mapping[str, Any]
    answered: bool = False  # whether the address has ever answered

    def __call__(self, what: str, call: Callable[[], T]) -> T:
        """The answer. Raises FileNotFoundError, FileExistsError, EOFError for a range of an empty file, StoreError.

        `what` says what cannot be done if it fails, such as "be read".
        """
        began, tries = time.monotonic(), 0
        while True:
            tries += 1
            try:
                answer = call()
            except Exception as error:  # noqa: BLE001 - whatever its library raises
                fault = judge(error)
                plain = {"missing": FileNotFoundError, "exists": FileExistsError, "empty": EOFError}.get(
                    fault.meaning
                )
                self.answered = self.answered or plain is not None
                if plain is not None:
                    raise plain(errno.ENOENT, "nothing is there") from None
                passes = fault.meaning == "passing" or (fault.meaning == "unknown host" and self.answered)
                pause = min(_LONGEST_PAUSE, FIRST_PAUSE * 2 ** (tries - 1)) * _CHANCE.uniform(0.5, 1.0)
                waited = time.monotonic() - began
                if (
                    not passes
                    or tries >= TRIES
                    or waited + pause > (SECONDS if self.answered else FIRST_SECONDS)
                ):
                    # Without the library's error, whose text and values may have credentials.
                    raise self._refusal(what, fault, tries if passes else 0, waited) from None
                time.sleep(pause)
            else:
                self.answered = True
                return answer

    def _refusal(self, what: str, fault: Fault, tries: int, seconds: float) -> StoreError:
        if tries:
            remedy = (
                f"tried {tries} times in {seconds:.0f} s; check the connection and the service, and run again: "
                "what was stored is kept"
            )
        else:
            remedy = _REMEDIES[fault.meaning]
        said = self.hidden(fault.said)  # before it is cut: part of a secret is one, too
        said = said if len(said) <= _LONGEST else f"{said[:_LONGEST]}..."
        return StoreError(self.hidden(f"store {self.where} cannot {what}: {said}; {remedy}"))

    def hidden(self, text: str) -> str:
        """The text without credentials."""
        for secret in secrets_around(self.settings):
            text = text.replace(secret, "***")
        return hide(text, self.where)
