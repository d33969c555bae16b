"""Makes text from outside, such as names, paths and messages, safe to show."""

from __future__ import annotations

import codecs
import difflib
import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from rich.console import Console

# Control characters except line feed and tab, characters that reorder text, and halves of surrogate pairs.
_UNPRINTED = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_SECRET = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)(?P<user>[^/@\s'\"]*@)?(?P<rest>[^\s'\"]*)")
_QUERY = re.compile(r"([?&;][^=&;#\s'\"]*=)[^&;#\s'\"]*")
_HIDDEN = "***"
# Replacements for terminals without Unicode.
_PLAIN = {
    "−": "-",
    "–": "-",
    "—": "-",
    "…": "...",
    "×": "x",
    "±": "+-",
    "≤": "<=",
    "≥": ">=",
    "·": "-",
    "δ": "delta",
}
_PLAIN |= {
    "’": "'",
    "‘": "'",
    "“": '"',
    "”": '"',
    "→": "->",
    "θ": "theta",
    "₀": "0",
    "━": "=",
    "─": "-",
    "│": "|",
}


def visible(text: str) -> str:
    r"""The text with every character that a terminal, a page or a figure would obey rather than show as an escape.

    >>> from winticket.text import visible
    >>> print(visible("a\x1b[31mb"))
    a\x1b[31mb
    """
    return _UNPRINTED.sub(
        lambda match: match[0].encode("unicode_escape", "surrogatepass").decode("ascii"), text
    )


def alike(name: str, known: Collection[str], *, most: int = 1) -> list[str]:
    """The known names that are spelt most like `name`, in upper or lower case; at most `most`."""
    lower = {one.lower(): one for one in known}
    return [lower[one] for one in difflib.get_close_matches(name.lower(), list(lower), n=most)]


def nearest(name: str, known: Collection[str]) -> str:
    """A hint for a misspelt name; empty if no known name is alike.

    >>> from winticket.text import nearest
    >>> "no option 'stepps'" + nearest("stepps", ["steps", "batch"])
    "no option 'stepps' (did you mean 'steps'?)"
    """
    return "".join(f" (did you mean {one!r}?)" for one in alike(name, known))


def counted(count: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "plan"), counted(2, "plan")
    ('1 plan', '2 plans')
    """
    return f"1 {noun}" if count == 1 else f"{count} {noun}s"


def cleaned(value: Any) -> Any:
    r"""A JSON value with `visible` applied to every text in it, including names.

    >>> cleaned({"name": ["a\x07b"]})
    {'name': ['a\\x07b']}
    """
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, Mapping):
        return {
            visible(name) if isinstance(name, str) else name: cleaned(item) for name, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [cleaned(item) for item in value]
    return value


def without_secrets(text: str) -> str:
    """The text with user names, passwords and query values of all URLs in it hidden.

    >>> from winticket.text import without_secrets
    >>> without_secrets("s3://me:secret@bucket/runs?token=abc is gone")
    's3://***@bucket/runs?token=*** is gone'
    """

    def hidden(match: re.Match[str]) -> str:
        user = f"{_HIDDEN}@" if match["user"] else ""
        return match["scheme"] + user + _QUERY.sub(rf"\g<1>{_HIDDEN}", match["rest"])

    return _SECRET.sub(hidden, text)


def secrets_of(url: str) -> tuple[str, ...]:
    """The secret parts of a URL: its password and query values, to remove from other libraries' messages.

    >>> secrets_of("s3://me:secret@bucket/runs?token=abc")
    ('secret', 'abc')
    """
    if "://" not in url:
        return ()
    try:
        parts = urlsplit(url)
    except ValueError:
        return ()
    values = [pair.partition("=")[2] for pair in re.split("[&;]", parts.query)]
    return tuple(value for value in (parts.password, *values) if value)


def hide(text: str, url: str) -> str:
    """The text with the secrets of `url`, and those of all URLs in the text, hidden.

    >>> hide("wrong password: secret", "s3://me:secret@bucket")
    'wrong password: ***'
    """
    for secret in secrets_of(url):
        text = text.replace(secret, _HIDDEN)
    return without_secrets(text)


def _legible(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(c, "?") for c in error.object[error.start : error.end]), error.end


codecs.register_error("winticket", _legible)


def console(*, stderr: bool = False) -> Console:
    """A terminal or file to print to, which shows text unchanged: it reads no markup and passes no escapes on."""
    from rich.console import Console
    from rich.segment import Segment

    class Shown(Console):
        def _render_buffer(self, buffer: Any) -> str:
            return super()._render_buffer(
                segment if segment.control else Segment(visible(segment.text), segment.style)
                for segment in buffer
            )

    return Shown(stderr=stderr, markup=False, emoji=False, highlight=False)
