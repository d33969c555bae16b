"""Each integration is imported by itself, and its heavy package nowhere else."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from winticket import integrations

PACKAGES = ("lightning", "transformers")
FOLDER = Path(integrations.__file__).parent
SEEN = "import sys; print(sorted({'lightning', 'transformers', 'accelerate'} & set(sys.modules)))"


def output(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_nothing_else_imports_the_heavy_packages() -> None:
    rooms = "import winticket.cli, winticket.loops, winticket.interop, winticket.integrations.search; "
    assert output(rooms + SEEN) == "[]"


@pytest.mark.parametrize("package", PACKAGES)
def test_one_does_not_need_the_other(package: str) -> None:
    # Read, not run: Lightning imports Transformers by itself where both are installed.
    tree = ast.parse((FOLDER / f"{package}.py").read_text())
    roots = {n.module.partition(".")[0] for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
    assert roots & set(PACKAGES) == {package}


def test_without_the_package_it_says_what_to_install() -> None:
    code = (
        f"import importlib, sys\nfor package in {PACKAGES!r}:\n    sys.modules[package] = None\n"
        "    try:\n        importlib.import_module(f'winticket.integrations.{package}')\n"
        "    except ImportError as error:\n        print(error)"
    )
    for package, said in zip(PACKAGES, output(code).splitlines(), strict=True):
        assert f"pip install 'winticket[{package}]'" in said


@pytest.mark.parametrize("package", PACKAGES)
def test_a_checkpoint_is_not_gone_on_from(package: str) -> None:
    module = importlib.import_module(f"winticket.integrations.{package}")
    search, state = module.LotteryTicket([0.5], epochs=1), SimpleNamespace(global_step=3)
    told = (state, None) if package == "lightning" else (None, state, None)
    begin = search.on_train_start if package == "lightning" else search.on_train_begin
    with pytest.raises(ValueError, match="continue from the ticket of its last level"):
        begin(*told)
