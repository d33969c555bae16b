"""Files beside the code: the citation, the hooks, the bounds of dependencies."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import yaml
from packaging.version import Version
from tools import oldest

import winticket

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
)


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == winticket.__version__
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == PROJECT["authors"]
    assert citation["keywords"] == PROJECT["keywords"]
    assert citation["abstract"] == PROJECT["description"]
    (paper,) = citation["references"]
    assert [author["family-names"] for author in paper["authors"]] == ["Frankle", "Carbin"]
    assert paper["year"] == 2019


def test_hooks_run_what_make_runs() -> None:
    """ruff and mypy come from .venv, where constraints.txt fixes their versions."""
    repositories = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    (ours,) = [r["hooks"] for r in repositories if r["repo"] == "local"]
    assert [hook["entry"] for hook in ours] == [
        ".venv/bin/ruff format --force-exclude",
        ".venv/bin/ruff check --force-exclude",
        ".venv/bin/mypy",
    ]
    (others,) = [r["hooks"] for r in repositories if r["repo"] != "local"]
    assert {hook["id"] for hook in others} == {"end-of-file-fixer", "trailing-whitespace"}
    assert "pre_commit" in PINNED


def canonical(name: str) -> str:
    return name.lower().replace("_", "-")


def test_the_oldest_versions_are_those_behind_the_bounds() -> None:
    assert oldest.lowest(["torch>=2.6", "py-cpuinfo >= 9.0.1", "stubs", "winticket[extra]"]) == {
        "torch": "2.6",
        "py-cpuinfo": "9.0.1",
    }


def test_every_dependency_has_a_lowest_version_and_its_pin_is_no_lower() -> None:
    assert set(oldest.lowest(PROJECT["dependencies"])) == {d.split(">=")[0] for d in PROJECT["dependencies"]}
    pins = {canonical(name): version for name, version in PINNED.items()}
    for name, bound in oldest.lowest(oldest.direct()).items():
        if name != "nanobind":  # of the build
            assert Version(pins[canonical(name)]) >= Version(bound), name
