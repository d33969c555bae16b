"""`python -m winticket` is the command."""

from __future__ import annotations

from winticket.cli import main

if __name__ == "__main__":
    main()
