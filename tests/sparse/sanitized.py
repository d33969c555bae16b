"""Run tests with the kernels of another build in place of the installed ones: `sanitized.py BUILD TESTS...`."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

NAME = "winticket.sparse._kernels"

if __name__ == "__main__":
    (built,) = Path(sys.argv[1]).glob("_kernels*.so")
    spec = importlib.util.spec_from_file_location(NAME, built)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    from winticket.sparse.native import kernels

    assert kernels is module
    raise SystemExit(pytest.main(["-q", "-p", "no:cacheprovider", *sys.argv[2:]]))
