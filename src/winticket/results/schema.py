"""The version of the documents' schema, and which documents this version of winticket reads."""

from __future__ import annotations

import msgspec

from winticket.version import __version__

SCHEMA = 1
"""Raised when a key of a document goes, or changes its type or meaning; a key that is merely new does not raise it."""


class OtherSchemaError(ValueError):
    """A document of another schema; the message says what to do."""


class Written(msgspec.Struct):
    """Who wrote a document, and by which schema. Documents of before there was a number are read as the first."""

    schema: int = 1
    winticket: str | None = None


def require_schema(written: Written) -> None:
    """OtherSchemaError unless this version of winticket reads documents of that schema.

    >>> from winticket.results import OtherSchemaError, Written, require_schema
    >>> require_schema(Written(schema=1))
    >>> try:
    ...     require_schema(Written(schema=99, winticket="9.0"))
    ... except OtherSchemaError as error:
    ...     print(str(error).partition(",")[0])
    winticket 9.0 wrote it with schema 99
    """
    if written.schema == SCHEMA:
        return
    writer = "a version of winticket" if written.winticket is None else f"winticket {written.winticket}"
    remedy = "install a newer winticket"
    if written.schema < SCHEMA:
        remedy = "run the command that wrote it again with another --out; every stored training is reused"
    raise OtherSchemaError(
        f"{writer} wrote it with schema {written.schema}, and this is winticket {__version__}, which reads schema "
        f"{SCHEMA}; {remedy}"
    )
