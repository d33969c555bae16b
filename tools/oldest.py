"""Print the lowest version of every direct dependency that pyproject.toml allows, as constraints for pip."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
BOUNDED = re.compile(r"([\w.-]+)\s*>=\s*([\w.]+)")


def lowest(requirements: Iterable[str]) -> dict[str, str]:
    """The version behind `>=` in each requirement, by name; requirements without one (type stubs) are left to pip.

    >>> lowest(["torch>=2.6", "scipy-stubs"])
    {'torch': '2.6'}
    """
    bounds = (BOUNDED.fullmatch(requirement) for requirement in requirements)
    return {bound[1]: bound[2] for bound in bounds if bound}


def direct() -> list[str]:
    """Every requirement of the project and of its extras."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    return [
        *project["dependencies"],
        *(r for extra in project["optional-dependencies"].values() for r in extra),
    ]


if __name__ == "__main__":
    sys.stdout.writelines(f"{name}=={version}\n" for name, version in lowest(direct()).items())
