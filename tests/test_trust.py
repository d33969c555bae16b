"""What a file may decide: no module is imported, no function called and nothing fetched because a file says so."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import winticket
from undrawn import undraw
from winticket import importing, models, ship
from winticket.experiment import Experiment, conduct, load_source
from winticket.outside import read_header
from winticket.run import Store, StoreError, codec, task
from winticket.run.codec_header import digest_of
from winticket.ship import native
from winticket.ticket import Mask, Seeds, State, Ticket

KEY = "ab" + "0" * 62


@pytest.fixture
def evil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with modules that leave a mark if anybody runs them; the working directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    for name in ("evilmod", "queue", "torch", "json", "triton", "onnx"):
        (folder / f"{name}.py").write_text(
            f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})\ndef f(*a, **k):\n    raise SystemExit(3)\n"
        )
    monkeypatch.chdir(folder)
    return tmp_path


def ran(evil: Path) -> str:
    mark = evil / "ran"
    return mark.read_text() if mark.exists() else ""


def command(
    *words: str,
    folder: Path,
    module: bool = False,
    script: Path | None = None,
    environment: dict[str, str] | None = None,
    **more: Any,
) -> subprocess.CompletedProcess[str]:
    script = script or folder.parent / "winticket"
    start = [sys.executable, "-m", "winticket"] if module else [sys.executable, str(script)]
    if not module and not script.exists():
        (folder.parent / "winticket").write_text("from winticket.cli import main\nmain()\n")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONSAFEPATH"} | (environment or {})
    return subprocess.run(
        [*start, *words],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
        check=False,
        **more,
    )


def record(path: str, **fields: Any) -> bytes:
    """A store's file that holds a record of that class, its digests right."""
    return kept({"record": path, "fields": fields})


def kept(tree: dict[str, Any]) -> bytes:
    """A store's file with that for a value, its digests right."""
    header, metadata = read_header(codec.encode(Seeds(1, 2), {"key": KEY}), whole=False)
    told = json.loads(metadata["winticket"])
    told["tree"] = tree
    told["digest"] = digest_of(told["tree"], {})
    from safetensors.torch import save

    assert header == {}
    return save({}, {"winticket": json.dumps(told)})


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("winticket.experiment.spec:Experiment", {"data": "digits", "criterion": "evilmod:f"}),
        ("winticket/Setup", {"data": "digits", "model": "evilmod:f"}),
        ("winticket.__main__:x", {}),
        ("winticket.__main__:main", {}),
        ("winticket.cli:main", {}),
        ("winticket.cli.stores:gc", {}),
        ("evilmod:f", {}),
        ("os:system", {"command": "touch ran"}),
        ("winticket.run.codec_pieces:dataclasses.Field", {}),
        ("winticket.ticket.nouns:Path", {}),
        ("winticket.ticket.nouns:Layout", {}),  # by way of another module
        ("winticket.judge.verdict:Verdict", {}),
        ("", {}),
        ("winticket.ticket.nouns", {}),
        (".:x", {}),
        ("winticket..:x", {}),
    ],
)
def test_a_stores_record_names_nothing_that_runs(evil: Path, path: str, fields: dict[str, Any]) -> None:
    store = Store(evil / "runs")
    store.check_writable()
    store.files.write(f"results/ab/{KEY}.safetensors", record(path, **fields))
    with pytest.raises(StoreError):
        store.get(KEY)
    assert store.ls()[0].key == KEY
    assert ran(evil) == ""
    assert "evilmod" not in sys.modules


IMPORTED = """
import sys
from winticket.run import Store
for path in sys.argv[2:]:
    before = set(sys.modules)
    try:
        Store(path).get(sys.argv[1])
    except Exception as error:
        print(type(error).__name__, file=sys.stderr)
    print(*sorted(set(sys.modules) - before))
"""


def test_reading_a_record_imports_nothing_that_the_file_names(tmp_path: Path) -> None:
    trees: list[dict[str, Any]] = [
        {"tensor": "_dynamo", "shape": [1], "data": "x"},
        {"tensor": "onnx", "shape": [1], "data": "x"},
        {"record": "winticket.integrations.lightning:LotteryTicket", "fields": {}},
        {"record": "winticket.experiment.spec:Experiment", "fields": {}},
    ]
    stores = [tmp_path / str(number) for number in range(len(trees))]
    for path, tree in zip(stores, trees, strict=True):
        store = Store(path)
        store.check_writable()
        store.files.write(f"results/ab/{KEY}.safetensors", kept(tree))
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, KEY, *map(str, stores)],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    said = done.stderr.split()
    assert len(said) == len(trees)
    assert set(said) <= {"Damaged", "StoreError"}
    rooms = {name.split(".")[1] for name in done.stdout.split() if name.startswith("winticket.")}
    assert rooms <= {"ticket", "units"}
    assert not any(
        name.startswith(("torch._dynamo", "torch.onnx", "lightning")) for name in done.stdout.split()
    )


def test_records_that_are_meant_to_be_stored_still_are(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.files.write(f"results/ab/{KEY}.safetensors", record("winticket/Seeds", root=1, replicate=2))
    assert store.get(KEY) == Seeds(1, 2)


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: its result.json, its store beside it."""
    folder = tmp_path_factory.mktemp("search")
    asked = Experiment.of("digits", model="lenet-12-8", density=(0.5,), steps=20, replicates=2, gate=False)
    with pytest.MonkeyPatch.context() as patch:
        undraw(patch)
        conduct(asked, store=folder / "runs", out=folder / "out", workers=0)
    return folder / "out" / "result.json"


def changed(search: Path, folder: Path, **entries: Any) -> Path:
    document = json.loads(search.read_text())
    document["experiment"].update(entries)
    path = folder / "result.json"
    path.write_text(json.dumps(document))
    return path


ENTRIES = ("model", "criterion", "allocate", "rewind", "pruning")
EVERY_RESULT = """
import json, sys
from winticket.cli import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["winticket", "transfer", *words, "--plan"]
    try:
        main()
    except SystemExit as left:
        print("status", left.code)
        sys.stdout.flush()
    else:
        print("status", 0)
    print("END", file=sys.stderr)
"""


def test_a_result_imports_fetches_and_connects_to_nothing_that_is_not_trusted(
    evil: Path, search: Path
) -> None:
    """One process gives the command every result, since starting one takes seconds; the last is trusted."""
    requests = []
    for entry in ENTRIES:
        (evil / entry).mkdir()
        path = changed(search, evil / entry, **{entry: "evilmod:f"})
        with pytest.raises(
            ValueError,
            match=rf"{entry} is 'evilmod:f': that would import the module evilmod.*--trust evilmod",
        ):
            load_source(path)
        requests.append([str(path)])
    with pytest.raises(ValueError, match=r"would be fetched from the Hub; .*--trust somebody/pictures"):
        load_source(changed(search, evil, data="somebody/pictures"))
    away, trusted = evil / "away.json", evil / "trusted"
    away.write_text(json.dumps({**json.loads(search.read_text()), "store": "http://127.0.0.1:9/runs"}))
    trusted.mkdir()
    (evil / "here" / "mylab.py").write_text("from winticket.criteria import magnitude as mine\n")
    mine = changed(search, trusted, criterion="mylab:mine")
    requests += [[str(away)], [str(mine), "--trust", "mylab"]]
    (evil / "every.py").write_text(EVERY_RESULT)
    done = command(json.dumps(requests), folder=evil / "here", script=evil / "every.py")
    assert re.findall(r"^status (\d+)", done.stdout, re.MULTILINE) == ["2"] * (len(ENTRIES) + 1) + ["0"], (
        done.stderr
    )
    assert "Traceback" not in done.stderr
    *modules, connected, _, _ = (" ".join(said.split()) for said in done.stderr.split("END"))
    for entry, said in zip(ENTRIES, modules, strict=True):
        assert f"{entry} is 'evilmod:f': that would import the module evilmod" in said
        assert said.count("--trust evilmod") == 1
    assert "this command would connect to it" in connected
    assert ran(evil) == ""


def test_a_ticket_names_no_module_that_is_then_imported(evil: Path) -> None:
    weights = {"w": torch.ones(2, 2)}
    about: Any = {"build": {"name": "evilmod:f", "input_shape": [4], "classes": 2, "generator_seed": 0}}
    mine = Ticket(Mask.full(weights), State(weights, {}, {}, 0), "imp", Seeds(0, 0), about)
    mine.save(evil / "ticket.safetensors")
    there: Any = winticket.Ticket.load(evil / "ticket.safetensors").about["build"]
    with pytest.raises(ValueError, match="would be imported and called; if you know it, add trust=True"):
        models.build(**there)
    assert ran(evil) == ""


SEARCH_AND_INFO = """
import sys
from winticket.cli import main
for words in (sys.argv[1:], ["info"]):
    sys.argv = ["winticket", *words]
    try:
        main()
    except SystemExit as left:
        assert not left.code
"""


@pytest.mark.parametrize("module", [False, True])
def test_the_working_directory_is_searched_last_and_for_the_users_modules_only(
    evil: Path, module: bool
) -> None:
    """A search by a worker: by the command, which draws and then tells of this machine; by `-m`, which is quiet."""
    here = evil / "here"
    (here / "mylab.py").write_text("import helpers\nfrom winticket.criteria import magnitude as mine\n")
    (here / "helpers.py").write_text("")
    (evil / "both.py").write_text(SEARCH_AND_INFO)
    given = ("--model=lenet-12-8", "--density=0.5", "--steps=20", "--replicates=2", "--criterion=mylab:mine")
    words = ("find", "digits", *given, "--no-gate", "--workers=1", *(("--quiet",) if module else ()))
    done = command(*words, folder=here, module=module, script=evil / "both.py")
    assert done.returncode == 0, done.stderr
    assert list(here.rglob("result.json"))
    assert ran(evil) == ""


def test_what_lies_in_a_virtual_environment_here_may_not_import_from_here(evil: Path) -> None:
    here = evil / "here"
    (here / ".venv").mkdir()
    (here / ".venv" / "thirdparty.py").write_text("try:\n    import triton\nexcept ImportError:\n    pass\n")
    (here / "mylab.py").write_text("import thirdparty\nfrom winticket.criteria import magnitude as mine\n")
    paths = os.pathsep.join([str(here / ".venv"), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    words = ("plan", "digits", "--criterion", "mylab:mine")
    done = command(*words, folder=here, environment={"PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr
    assert ran(evil) == ""


@pytest.mark.skipif(bool(native.missing), reason=str(native.missing))
def test_processes_that_measure_memory_do_not_search_the_working_directory(evil: Path) -> None:
    for name in ("winticket", "runpy", "typing"):
        (evil / "here" / f"{name}.py").write_text((evil / "here" / "json.py").read_text())
    weight = ship.Weight.of("fc", np.eye(4))
    ship.save(
        ship.Network((4,), (ship.Operation("linear", ("input",), "1", tensors={"weight": weight}),)),
        evil / "net.safetensors",
    )
    words = (
        "measure",
        "../net.safetensors",
        "--batch",
        "1",
        "--rounds",
        "1",
        "--runtime",
        "torch",
        "--no-energy",
    )
    done = command(*words, "--json", folder=evil / "here")
    assert done.returncode == 0, done.stderr
    assert all(json.loads(done.stdout)["memory"].values())
    assert ran(evil) == ""


@pytest.mark.parametrize("module", [False, True])
def test_an_empty_entry_in_the_path_does_not_put_the_working_directory_first(
    evil: Path, module: bool
) -> None:
    (evil / "here" / "typing.py").write_text((evil / "here" / "json.py").read_text())
    paths = os.pathsep.join(["", "/nowhere", os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    done = command("info", folder=evil / "here", module=module, environment={"PYTHONPATH": paths})
    assert done.returncode == 0, done.stderr
    assert ran(evil) == ""


def test_a_working_directory_that_is_gone_is_told(tmp_path: Path) -> None:
    (tmp_path / "winticket").write_text("from winticket.cli import main\nmain()\n")
    (tmp_path / "gone").mkdir()
    line = f"cd gone && rmdir ../gone && {sys.executable} {tmp_path / 'winticket'} info"
    done = subprocess.run(
        ["/bin/sh", "-c", line], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 2
    assert "the working directory no longer exists" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "path", ["winticket.cli:main", "winticket.__main__:main", "winticket.criteria:Evidence"]
)
def test_a_function_of_ours_is_no_criterion_because_a_file_says_so(
    evil: Path, search: Path, path: str
) -> None:
    with pytest.raises(ValueError, match="which is none of winticket's functions for it"):
        load_source(changed(search, evil, criterion=path), trust=["winticket"])
    assert load_source(changed(search, evil, criterion="winticket.criteria:magnitude"))


def test_importing_main_runs_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import winticket.__main__"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_module_that_exits_when_imported_is_an_error_in_words(
    evil: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (evil / "here" / "leaves.py").write_text("import sys\nsys.exit(0)\n")
    monkeypatch.syspath_prepend(evil / "here")
    with pytest.raises(ImportError, match=r"leaves calls sys\.exit\(0\)"):
        importing.import_named("leaves")
    done = command("find", "digits", "--model", "leaves:f", "--steps", "20", folder=evil / "here")
    assert done.returncode == 2
    assert "calls sys.exit(0)" in " ".join(done.stderr.split())


def test_a_function_that_a_program_names_is_still_found() -> None:
    assert task("run.jobs:plant", seed=1).fn == "run.jobs:plant"
