"""Other runtimes for `inference.py`, in a folder of their own: they are no dependencies of winticket."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "ai-edge-litert": "ai_edge_litert"}
"""By the name to install, the name to import."""


def ready(folder: Path) -> None:
    """Make the packages importable: absent ones are installed in `folder`, behind all others."""
    sys.path.append(str(folder.absolute()))
    absent = [name for name, module in PACKAGES.items() if importlib.util.find_spec(module) is None]
    if not absent:
        return
    print(f"Installing {', '.join(absent)} in {folder}")
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target"]
    subprocess.run([*words, str(folder), *absent], check=True)
    importlib.invalidate_caches()
