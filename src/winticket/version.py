"""The version, alone in a module so that it can be read without importing torch."""

from __future__ import annotations

__version__ = "0.1.0"
