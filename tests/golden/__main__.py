"""Write golden.json anew, and say what changed."""

from __future__ import annotations

import sys

from .made import FILE, made, read, write

before = read() if FILE.exists() else {}
now = made()
write(now)
for name in sorted(before.keys() | now.keys()):
    if before.get(name) != now.get(name):
        sys.stdout.write(f"{name}\n")
