"""Run tests with the compiled modules of another build instead of the installed ones: `sanitized.py BUILD TESTS...`."""

from __future__ import annotations

import importlib.util
import sys
from importlib import import_module
from pathlib import Path

import pytest

MODULES = {"winticket.sparse._kernels": "kernels", "winticket.ship._inference": "inference"}
"""Each compiled module, and its name in `native` beside it."""


def replace(name: str, folder: Path) -> object:
    """Load the module from its file in `folder`, under its name."""
    (built,) = folder.glob(f"{name.rpartition('.')[2]}*.so")
    spec = importlib.util.spec_from_file_location(name, built)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    replaced = {name: replace(name, Path(sys.argv[1])) for name in MODULES}
    for name, attribute in MODULES.items():
        native = import_module(name.rpartition(".")[0] + ".native")
        assert getattr(native, attribute) is replaced[name]
    raise SystemExit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[2:]]))
