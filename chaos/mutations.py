"""Change files by accident (bits, lengths) or on purpose (other JSON with a right checksum)."""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, -(2**63), 10**30, 1e308, -0.5, 0.1, "", "x", "nan", "\x1b[31m",
    "\udcff", "a\0b", "~nobody-here/x", "n" * 5000, "../../etc/passwd", "evilmod:f", "os:system", "winticket.cli:main",
    "http://127.0.0.1:9/x", [], {}, [[]], [1, 2], {"a": 1}, ["x"] * 50,
)  # fmt: skip
_RAW = ("1e999", "NaN", "-Infinity", "[" * 2000, '"\\ud800"', "{", "")


def by_accident(data: bytes, rng: Random) -> bytes:
    """Change bytes as disks and networks do: flipped bits, a cut, an extension, a hole, a moved piece."""
    changed = bytearray(data)
    at = rng.randrange(max(1, len(data)))
    kind = rng.randrange(7)
    if kind == 0:
        for _ in range(rng.choice((1, 1, 1, 8))):
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        del changed[at:]
    elif kind == 2:
        changed += rng.randbytes(rng.choice((1, 8, 1000)))
    elif kind == 3:
        length = rng.choice((1, 8, 512))
        changed[at : at + length] = bytes(len(changed[at : at + length]))
    elif kind == 4:
        del changed[at : at + rng.choice((1, 7, 64))]
    elif kind == 5:
        other = rng.randrange(max(1, len(data)))
        changed[at : at + 64] = data[other : other + 64]
    else:
        changed[:8] = rng.choice((rng.randbytes(8), (2**40).to_bytes(8, "little"), bytes(8)))
    return bytes(changed)


def odd_json(value: Any, rng: Random) -> Any:
    """The JSON value with one odd entry: another value, a missing one, or one more level."""
    entries: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for name, item in items:
            entries.append((node, name))
            walk(item)

    whole = json.loads(json.dumps(value))
    walk(whole)
    if not entries:
        return rng.choice(ODD)
    node, name = rng.choice(entries)
    kind = rng.randrange(5)
    if kind == 0:
        del node[name]
    elif kind == 1:
        node[name] = [node[name]]
    elif kind == 2 and isinstance(node, dict):
        node[f"{name}x"] = node.pop(name)
    else:
        node[name] = rng.choice(ODD)
    return whole


def json_text(text: str, rng: Random) -> str:
    """A JSON document with one odd entry as text; sometimes it is not JSON any more."""
    changed = json.dumps(odd_json(json.loads(text), rng))
    if rng.random() < 0.15:
        at = rng.randrange(len(changed))
        changed = changed[:at] + rng.choice(_RAW) + changed[at + rng.randrange(3) :]
    return changed


def metadata(content: bytes, rng: Random, repair: Callable[[dict[str, Any], bytes], dict[str, Any]]) -> bytes:
    """A safetensors file with its "winticket" entry or header changed on purpose.

    `repair(document, content)` returns the changed document with the right checksum; `content` is the original file.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    if rng.random() < 0.3:
        header = odd_json(header, rng)
        if not isinstance(header, dict):
            header = {"__metadata__": header}
    else:
        document = odd_json(json.loads(header["__metadata__"]["winticket"]), rng)
        if isinstance(document, dict):
            header["__metadata__"]["winticket"] = json.dumps(repair(document, content))
        else:
            header["__metadata__"]["winticket"] = json.dumps(document)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[end:]
