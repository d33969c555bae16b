"""The command as people meet it: what it prints where, its exit status, and that a wrong request writes nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

from undrawn import undraw
from winticket import report
from winticket.cli import main, searches
from winticket.cli.options import OPTIONS
from winticket.data import hub
from winticket.experiment import Experiment, Plan, execution, open_run, outcome, plan, running, trained
from winticket.run.files import LocalFiles
from winticket.ticket import Mask, Seeds, State, Ticket
from winticket.train import Recipe

QUICK = [
    *("--model", "lenet-20-10", "--steps", "20", "--evaluate-every", "10"),
    *("--levels", "2", "--replicates", "2", "--stack", "2", "--no-gate"),
]


class Answer(NamedTuple):
    status: int
    out: str
    err: str

    def told(self) -> str:
        """What was said on stderr, on one line and without the frames that the terminal draws."""
        return " ".join(re.sub(r"[│╭╮╰╯─]", " ", self.err).split())


Shell = Callable[..., Answer]

MODELS = """
import numpy, os, torch
from torch import nn

def build(*, input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, classes))

def wrong_logits(*, input_shape, classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes + 1))

class Recurrent(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.rnn, self.out = nn.GRU(8, 6, batch_first=True), nn.Linear(6, classes)
    def forward(self, x):
        return self.out(self.rnn(x.flatten(1, 2))[0].mean(1))

def recurrent(*, input_shape, classes):
    return Recurrent(classes)

class Crashes(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(64, 10)
    def forward(self, x):
        if self.training:
            raise KeyError("no such thing")
        return self.fc(x.flatten(1))

def crashes(*, input_shape, classes):
    return Crashes()

class Thin(Crashes):
    def forward(self, x):
        if (self.fc.weight == 0).any() and self.training and "WINTICKET_TEST_THIN" in os.environ:
            raise KeyError("no such thing")
        return self.fc(x.flatten(1))

def thin(*, input_shape, classes):
    return Thin()

def fixed(*, input_shape, classes):
    torch.manual_seed(7)
    return build(input_shape=input_shape, classes=classes)

def unseeded(*, input_shape, classes):
    module = build(input_shape=input_shape, classes=classes)
    with torch.no_grad():
        module[1].weight.copy_(torch.from_numpy(numpy.random.randn(12, 64)))
    return module

def greedy(scores, mask, *, density):
    return "all of them"

def noisy(evidence):
    return {name: torch.full(keep.shape, float("nan")) for name, keep in evidence.mask.keep.items()}

value = 3
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with everything in it that a request could stumble over."""
    folder = tmp_path / "here"
    (folder / "texts").mkdir(parents=True)
    (folder / "texts" / "notes.md").write_text("no image")
    (folder / "broken.parquet").write_bytes(b"PAR1" + b"nonsense" * 20 + b"PAR1")
    (folder / "unlabelled").mkdir()
    struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = pa.array([{"bytes": b"x", "path": None}] * 3, type=struct)
    pq.write_table(pa.table({"image": images}), folder / "unlabelled" / "train.parquet")
    (folder / "afile").write_text("in the way")
    lone = State({"fc1.weight": torch.ones(2, 3)}, {}, {}, 0)
    Ticket(Mask.full(lone.weights), lone, "ticket", Seeds(0, 0)).save(folder / "lone.safetensors")
    save_file(dict(lone.weights), folder / "weights.safetensors")
    (folder / "compare.json").write_text('{"rows": [], "budget_steps": 20}')
    (folder / "curves.json").write_text('[{"level": 0}]')
    (folder / "foreign").mkdir()
    (folder / "foreign" / "thesis.tex").write_text("mine")
    (folder / "newer").mkdir()
    (folder / "newer" / "winticket-store.json").write_text('{"format": 99}')
    (folder / "nets.py").write_text(MODELS)
    of = "from winticket import Experiment\n"
    (folder / "raises.py").write_text("1 / 0\n")
    (folder / "exits.py").write_text("raise SystemExit(0)\n")
    (folder / "empty.py").write_text("x = 1\n")
    (folder / "wrong.py").write_text(f"{of}experiment = Experiment.of('digitz')\n")
    (folder / "spec.py").write_text(f"{of}experiment = Experiment.of('digits', levels=1)\n")
    (folder / "spec.txt").write_text("experiment")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Shell:
    """Runs the command in this process, trainings included."""
    monkeypatch.setattr(execution, "processes", lambda: 0)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    undraw(monkeypatch)

    def shell(*words: str) -> Answer:
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["winticket", *words])
            patch.setattr(sys, "path", [*sys.path])
            patch.delitem(sys.modules, "nets", raising=False)
            capfd.readouterr()
            with pytest.raises(SystemExit) as left:
                main()
            said = capfd.readouterr()
        return Answer(int(left.value.code or 0), said.out, said.err)

    return shell


def python(*words: str) -> Answer:
    """The command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "winticket", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(p.relative_to(folder)): (p.stat().st_size, p.stat().st_mtime_ns)
        for p in folder.rglob("*")
        if "__pycache__" not in p.parts
    }


WRONG: dict[str, list[str]] = {
    # Data
    "find digts": ["unknown dataset 'digts'", "did you mean 'digits'", "mnist1d"],
    "find ./nowhere": ["no such file or folder: nowhere", "give a table (.csv, .parquet, ...)"],
    "find texts": ["no parquet file and no image in folder texts", "notes.md"],
    "find broken.parquet": ["broken.parquet"],
    "find unlabelled": ["unlabelled", "no label column", "image"],
    "find afile": ["afile is not a parquet file"],
    "find": ["Missing argument 'DATA'"],
    # Model, method and their parts
    "find digits --model lenet300": ["there is no model 'lenet300'", "did you mean 'lenet-300-100'", "module:build"],
    "find digits --model conv-8": ["there is no model 'conv-8'", "conv-6"],
    "find digits --model lenet-0": ["there is no model 'lenet-0'"],
    "find digits --optimizer sgd": ["optimizer sgd needs its own learning rate", "--lr", "usually 0.1"],
    "find digits --model lenet-99999999999": ["would have", "give smaller widths"],
    "plan digits --engine sparse --precision bf16": ["with precision bf16, use engine auto or dense"],
    "run spec.py --engine fast": ["engine is 'fast'", "auto, dense, sparse"],
    "find digits --engine fast": ["engine is 'fast'", "auto, dense, sparse"],
    "find mnist1d --model conv-2": ["conv-2 needs images", "lenet-300-100 takes any shape"],
    "find digits --model nets:bild": ["nets has no 'bild'", "did you mean 'build'"],
    "find digits --model nothere:build": ["'nothere:build' cannot be imported", "PYTHONPATH"],
    "find digits --model nets:value": ["'value' is int, which cannot be called"],
    "find digits --model nets:wrong_logits": ["should give logits [N, 10]", "(2, 11)"],
    "find digits --model nets:crashes": ["cannot be trained", "KeyError", "no such thing"],
    "find digits --model nets:fixed": ["the same weights from every seed"],
    "find digits --model nets:unseeded": ["draws different weights each time"],
    "find digits --method imb": ["unknown method 'imb'", "did you mean 'imp'", "one-shot"],
    "find digits --criterion magnitud": ["unknown criterion 'magnitud'", "did you mean 'magnitude'", "random"],
    "find digits --criterion nets:nothing": ["'nets:nothing': nets has no 'nothing'"],
    "find digits --criterion nets:noisy": ["criterion 'nets:noisy'", "not all finite"],
    "find digits --allocate layer": ["unknown allocate 'layer'", "global_top, layerwise"],
    "find digits --allocate structures": ["allocate 'structures' fails", "no structures to prune"],
    "find digits --allocate nets:greedy": ["allocate 'nets:greedy' fails", "must return a smaller mask"],
    "find digits --rewind to_stpe": ["unknown rewind 'to_stpe' (did you mean 'to_step'?)", "to_init"],
    "find digits --rewind-step 5": ["rewind to_init takes no step", "choose to_step"],
    "find digits --rewind to_step --rewind-step 800": ["rewind_step is 800, but training has 800 steps"],
    "find digits --rewind fine_tune": ["the cosine schedule ends at 4.6e-09", "choose schedule step or constant"],
    "find digits --control other --replicates 6": ["with 6 replicates in stacks of 5 one replicate is alone",
        "--stack"],
    "transfer nowhere.json": ["there is no nowhere.json", "give the result.json of a finished run"],
    "transfer foreign/thesis.tex": ["is not a result document of this version"],
    "transfer": ["Missing argument 'RESULT'"],
    "transfer some.json --criterion random": ["No such option", "--criterion"],
    "transfer foreign": ["there is no result.json in the folder foreign", "of a finished `winticket find`"],
    "transfer newer/../texts --to digits": ["there is no result.json in the folder"],
    "transfer lone.safetensors --to digits": ["is a single ticket, which cannot be judged", "all replicates",
        "give the result.json of the run that found it", "winticket.Ticket.load('lone.safetensors')"],
    "transfer weights.safetensors": ["is a safetensors file but not a ticket",
        "A transfer takes the result.json of a finished run"],
    "transfer nowhere.safetensors": ["there is no nowhere.safetensors; give the result.json"],
    "transfer compare.json": ["is the result of a comparison", "`winticket find` with one method"],
    "transfer curves.json": ["curves.json is not a result document of this version", "give the result.json"],
    "ship": ["Missing argument 'RUN'"],
    "ship nowhere": ["there is no nowhere; give the result.json of a finished run"],
    "ship foreign": ["there is no result.json in the folder foreign"],
    "ship compare.json": ["compare.json is not the result of a search or transfer by this version"],
    "ship foreign/thesis.tex": ["is not the result of a search or transfer by this version"],
    "ship lone.safetensors": ["holds the start of a training, not its end", "give the folder of the run",
        "winticket.ship.capture"],
    "ship weights.safetensors": ["is a safetensors file but not a ticket"],
    "ship nowhere.safetensors": ["there is no ticket file at nowhere.safetensors"],
    "ship lone.safetensors --density 0.1": ["lone.safetensors is one network", "choose from a run"],
    "ship nowhere --to onnxx": ["there is no format 'onnxx' (did you mean 'onnx'?)", "safetensors, torch"],
    "ship nowhere --values fp61": ["values is 'fp61' (did you mean 'fp16'?)"],
    "ship nowhere --to torch --values fp16": ["format torch holds values in fp32, not in fp16"],
    "ship nowhere --to c --values bf16": ["format c holds values in fp32, int8, not in bf16"],
    "ship nowhere --density 10%": ["type --density 0.1"],
    "find digits --criterion batchnorm_scale": ["needs a BatchNorm with weights right after each layer"],
    "find digits --method at-init --criterion movement": ["criterion movement looks at what training did to each"],
    "find digits --rewind to_step": ["rewind to_step needs a step; set it", "--rewind-step"],
    "find digits --rate 0.2 --final-density 0.1": ["rate does not go with final_density"],
    "find digits --allocate units --levels 3 --exclude fc1.weight": ["layer are the classes; exclude fc3.weight"],
    "find digits --criterion l1_units --allocate layerwise": ["among them by position", "use allocate units"],
    "find digits --criterion l1_units --method rigl": ["exchanges weights singly", "a criterion of single weights"],
    "find digits --allocate n_of_m": ["density 0.8 does not give a pattern of 4; possible: 0.25, 0.5, 0.75"],
    "find digits --control shuffle": ["unknown control 'shuffle'", "reinit, random"],
    "find digits --control reinit --control reinit": ["'reinit' is given twice"],
    "find digits --init glorot": ["there is no initialisation 'glorot'", "glorot-normal"],
    "find digits --exclude fc9*": ["'fc9*' fits no eligible weight", "fc1.weight"],
    "find digits --exclude *": ["no weight left to prune"],
    # Numbers
    "find digits --rate 0": ["rate is 0.0", "(0, 1)", "as 0.2"],
    "find digits --rate 1": ["rate is 1.0", "(0, 1)"],
    "find digits --rate -0.2": ["rate is -0.2"],
    "find digits --rate nan": ["rate is nan"],
    "find digits --rate some": ["Invalid value for '--rate'", "'some' is not a valid number"],
    "find digits --rate 20%": ["'20%' is not a valid number; type --rate 0.2"],
    "find digits --rate 0,2": ["'0,2' is not a valid number; type --rate 0.2"],
    "find digits --rate 0.2,0.3": ["--rate takes one number"],
    "find digits --density 0.1,0.05": ["type --density 0.1 --density 0.05"],
    "find digits --density 10%": ["type --density 0.1"],
    "find digits --density 10": ["density is [10.0]", "shares of the weights kept", "--density 0.5 --density 0.2"],
    "find digits --density 0.1 --density 0.2": ["falling, as --density 0.5 --density 0.2 --density 0.1"],
    "find digits --milestone 0.5,0.75": ["type --milestone 0.5 --milestone 0.75"],
    "transfer some.json --density 0.1,0.05": ["type --density 0.1 --density 0.05"],
    "compare digits --density 0.1,0.05": ["--density takes one number"],
    "find digits --method snip": ["which is a criterion: type --method at-init --criterion snip"],
    "find lenet-300-100": ["is a model", "winticket find digits --model lenet-300-100"],
    "find digits --model mnist": ["model 'mnist' is a dataset", "winticket find mnist"],
    "digits": ["No such command 'digits'", "type: winticket find digits"],
    "find digits --output-rate 1.5": ["output_rate is 1.5"],
    "find digits --conv-rate 0.1": ["conv_rate is 0.1", "no convolution to prune"],
    "find digits --levels 0": ["levels is 0", "at least 1"],
    "find digits --levels 100": ["more pruning than weights", "at most", "smaller rate"],
    "find digits --levels 40 --rate 0.0001 --model lenet-2": ["would prune none", "larger rate"],
    "find digits --replicates 0": ["replicates is 0", "at least 1"],
    "find digits --stack 0": ["stack is 0"],
    "find digits --method gradual --every 600 --steps 800": ["every is 600", "would prune once, at step 600"],
    "find digits --steps 0": ["steps is 0", "at least 1"],
    "find digits --batch 0": ["batch is 0"],
    "find digits --batch 5000": ["batch 5000 is larger than the 1197 training examples", "at most 1197"],
    "find digits --lr -1": ["lr is -1.0", "positive"],
    "find digits --lr nan": ["lr is nan"],
    "find digits --margin 0": ["margin is 0.0", "(0, 100)"],
    "find digits --alpha 0.7": ["alpha is 0.7", "usually 0.05"],
    "find digits --validation 0": ["validation size 0 is not possible"],
    "find digits --test 1797": ["test size 1797 is not possible"],
    "find digits --optimizer adagrad": ["optimizer is 'adagrad'", "sgd, adam, adamw"],
    "find digits --momentum 0.9": ["momentum", "belong to sgd"],
    "find digits --optimizer sgd --lr 0.1 --nesterov": ["nesterov needs a momentum"],
    "find digits --schedule linear": ["schedule is 'linear'", "cosine"],
    "find digits --milestone 0.5": ["milestones belongs to the step schedule", "leave milestones out"],
    "find digits --schedule step --milestone 1.5": ["milestones are (1.5,)", "(0, 1)"],
    "find digits --gamma 0.5": ["gamma belongs to the step schedule"],
    "find digits --steps 10 --warmup 10": ["warmup of 10 steps does not end within the 10 steps"],
    "find digits --stacking never": ["stacking is 'never'"],
    "find digits --split mine": ["unknown split 'mine'", "shared"],
    "find mnist1d --flip": ["flip is for images", "(1, 40)"],
    "find mnist1d --crop 2": ["crop is for images"],
    "find digits --crop 8": ["crop 8", "8x8"],
    "find digits --workers 0": ["workers is 0", "1 or more"],
    "find digits --workers two": ["Invalid value for '--workers'"],
    "find digits --ray 127.0.0.1:1": ["no Ray cluster answers at '127.0.0.1:1'", "--ray local"],
    "find digits --dask head": ["'head' is not an address of a Dask scheduler", "tcp://host:port"],
    "find digits --ray local --dask local": ["give --ray local or --dask local, not both"],
    "find digits --ray local --workers 0": ["workers is 0", "1 or more"],
    "find digits --dask local --workers 2 --store memory://here": ["this process's memory"],
    # Places
    "find digits --store afile": ["afile is a file", "a store is a directory"],
    "find digits --store afile/store": ["store", "afile/store", "pass another store"],
    "find digits --store foreign": ["not empty and not a store"],
    "find digits --store newer": ["made by a newer winticket", "format 99"],
    "find digits --store what://ever": ["store what://ever"],
    "find digits --store memory://here --workers 2": ["this process's memory", "workers=0"],
    "find digits --out afile": ["output folder 'afile' cannot be written", "pass another with --out"],
    "find digits --out afile/deep/er": ["output folder 'afile/deep/er' cannot be written"],
    # Specs
    "run nowhere.py": ["no file 'nowhere.py'", "defines `experiment`"],
    "run raises.py": ["raises.py does not run", "ZeroDivisionError"],
    "run exits.py": ["exits.py does not run", "SystemExit"],
    "run empty.py": ["has no experiment 'experiment'", "none at all", "Experiment.of"],
    "run spec.py --variant short": ["has no experiment 'short'", "it has experiment"],
    "run spec.txt": ["is not a Python file"],
    "run wrong.py": ["wrong.py does not run", "unknown dataset 'digitz'", "did you mean 'digits'"],
    # Plan and store
    "plan digits --rate 2": ["rate is 2.0"],
    "plan digits --store foreign": ["not empty and not a store"],
    "store ls": ["there is no store at 'runs'", "--store"],
    "store verify --store foreign": ["not empty and not a store"],
    "store gc --store nowhere": ["there is no store at 'nowhere'"],
    # The command itself
    "fnid": ["No such command 'fnid'", "Did you mean 'find'"],
    "find digits --level 3": ["No such option: --level", "--levels"],
    "find digits surplus": ["unexpected extra argument"],
}  # fmt: skip


@pytest.mark.parametrize("request_", WRONG)
def test_a_wrong_request_is_told_and_writes_nothing(
    request_: str, here: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reached(*_: object) -> None:
        raise AssertionError("looked on the Hub")

    monkeypatch.setattr(hub, "read", reached)
    before = listing(here)
    answer = shell(*request_.split())
    for fragment in WRONG[request_]:
        assert fragment in answer.told()
    assert answer.status == 2
    assert answer.out == ""
    assert "Traceback" not in answer.err
    assert listing(here) == before


def test_a_full_or_failing_disk_is_told_and_left_as_it_was(
    here: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = listing(here)
    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "free", lambda _: 10)
        answer = shell("find", "digits", *QUICK, "--out", "figures")
    assert answer.status == 2
    assert "bytes, but 10 are free; make room" in answer.told()
    assert listing(here) == before

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "write", full)
        answer = shell("find", "digits", *QUICK)
    assert answer.status == 2
    assert "No space left on device" in answer.told()
    assert listing(here) == before


def test_a_disk_that_fills_up_half_way_keeps_what_was_finished(
    here: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write = LocalFiles.write

    def filling(self: LocalFiles, name: str, data: bytes) -> None:
        if name.startswith("results/"):
            if len(written) == 3:
                raise OSError(28, "No space left on device")
            written.append(name)
        write(self, name, data)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFiles, "write", filling)
        answer = shell("find", "digits", *QUICK, "--json")
    assert answer.status == 1
    assert answer.out == ""
    assert "No space left on device" in answer.told()
    assert "Traceback" not in answer.err
    answer = shell("find", "digits", *QUICK, "--json")
    assert answer.status == 0
    document = json.loads(answer.out)
    assert (document["reused"], document["computed"]) == (3, 4)


def test_figures_and_page_that_cannot_be_written_are_told_and_the_numbers_are_there(
    here: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object, **__: object) -> list[Path]:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(report, "draw_all", lost)
        patch.setattr(report, "write_page", lost)
        answer = shell("find", "digits", *QUICK)
    assert answer.status == 1
    assert "figures: PermissionError: [Errno 13] Permission denied" in " ".join(answer.out.split())
    document = json.loads(next(here.rglob("result.json")).read_text())
    assert set(document["unwritten"]) == {"figures", "report"}
    assert document["verdict"]
    assert json.loads(shell("find", "digits", *QUICK, "--json").out)["computed"] == 0


def test_json_is_one_document_and_nothing_else(here: Path, shell: Shell) -> None:
    answer = shell("find", "digits", *QUICK, "--json", "--out", "told")
    assert answer.status == 0
    document = json.loads(answer.out, parse_constant=pytest.fail)
    assert set(document) >= {
        "winticket", "experiment", "store", "report", "ticket", "verdict", "levels", "seconds",
        "engine", "results", "curves", "figures", "failures", "data", "environment", "keys", "computed", "reused",
    }  # fmt: skip
    assert document == json.loads((here / "told" / "result.json").read_text())
    assert set(document["verdict"]) >= {"outcome", "density", "reason", "replicates_needed", "warnings"}
    assert document["verdict"]["outcome"] == "inconclusive"  # two replicates
    assert [set(level["arms"]) for level in document["levels"]] == [
        {"dense"},
        *[{"ticket", "reinit", "random"}] * 2,
    ]
    arm = document["levels"][1]["arms"]["ticket"]
    assert set(arm) >= {
        "accuracy", "accuracy_ci", "accuracies", "early_stop_step", "early_stop_ci", "early_stop_steps", "failed",
        "accuracy_at_early_stop", "accuracy_at_early_stop_ci", "accuracies_at_early_stop", "stacked", "stacking_reason",
        "steps_to",
    }  # fmt: skip
    assert arm["accuracy"] == pytest.approx(sum(arm["accuracies"]) / 2, abs=1e-12)
    assert all(0 < accuracy < 1 for accuracy in arm["accuracies"])
    assert set(document["levels"][1]["checks"]) >= {
        "accuracy",
        "beats_reinit",
        "beats_random",
        "time",
        "pace",
    }
    assert document["data"] == {
        **document["data"],
        "classes": 10,
        "train": 1197,
        "validation": 150,
        "test": 450,
    }
    assert Path(document["ticket"]).exists()
    assert "14 trainings (2 levels, 2 replicates), in stacks of up to 2, 280 steps" in answer.told()
    assert "The verdict will be inconclusive: 2 replicates cannot decide" in answer.told()
    assert "of 14 trainings" in answer.told()


def test_plan_says_what_find_would_do_and_writes_nothing(here: Path, shell: Shell) -> None:
    before = listing(here)
    answer = shell("plan", "digits", *QUICK, "--json")
    assert (answer.status, answer.err) == (0, "")
    told = json.loads(answer.out)
    cost = told["cost"]
    assert (cost["trainings"], cost["steps"], cost["reused"], cost["failed"]) == (14, 280, 0, 0)
    assert cost["seconds"] > 0
    assert cost["bytes"] > 0
    assert "work" not in cost
    # 64-20-10-10: 1280 and 200 weights at .8, 100 at .9; then at .64 and .81.
    kept = [1580, 1024 + 160 + 90, round(1280 * 0.64) + 128 + 81]
    assert [level["kept"] for level in told["levels"]] == kept
    assert [level["density"] for level in told["levels"]] == [k / 1580 for k in kept]
    shown = {row["name"]: row for row in told["parameters"]}
    assert shown["fc1.weight"] == {"name": "fc1.weight", "shape": [20, 64], "size": 1280, "spared": None}
    assert shown["fc3.bias"]["spared"] == "bias"
    answer = shell("plan", "digits", *QUICK)
    assert answer.status == 0
    assert "pruned: 1,580 weights" in answer.out
    assert "not pruned: fc1.bias, fc2.bias, fc3.bias" in answer.out
    assert "14 trainings (2 levels, 2 replicates), in stacks of up to 2, 280 steps, about" in answer.out
    assert "KiB of disk" in answer.out
    assert listing(here) == before
    shell("find", "digits", *QUICK, "--quiet")
    answer = shell("plan", "digits", *QUICK)
    assert "Nothing to train (2 levels, 2 replicates); 14 trainings are reused from the store" in answer.out


def test_plan_forecasts_a_cluster(here: Path, shell: Shell) -> None:
    words = ("plan", "digits", *QUICK, "--stack", "1", "--machines", "3")
    answer = shell(*words, "--cores-per-machine", "2", "--json")
    assert (answer.status, answer.err) == (0, "")
    told = json.loads(answer.out)["cluster"]
    assert (told["machines"], told["cores_per_machine"]) == (3, 2)
    assert [row["machines"] for row in told["table"]] == [1, 2, 3]
    assert told["critical_path"]["words"] == "dense, ticket at levels 1 to 2"
    assert told["work_seconds"] > told["critical_path"]["seconds"] > 0
    assert shell("plan", "digits", *QUICK, "--json").out.count("cluster") == 0
    text = " ".join(shell(*words).out.split())  # the terminal wraps it
    assert "on 3 machines of" in text
    assert "3 trainings of one stack, one after the other (dense, ticket at levels 1 to 2)" in text
    assert "requests (" in text


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (("--machines", "0"), "machines is 0; it is a whole number of at least 1"),
        (("--machines", "-2"), "machines is -2; it is a whole number of at least 1"),
        (("--machines", "99999999"), "machines is 99999999; at most 10,000 are forecast"),
        (("--machines", "two"), "'two' is not a valid number"),
        (("--machines", "2", "--cores-per-machine", "0"), "cores_per_machine is 0; it is a whole number"),
        (("--machines", "2", "--cores-per-machine", "9999"), "a machine has at most 1,024"),
        (("--cores-per-machine", "4"), "there is no number of machines; give it as well, as --machines 8"),
    ],
)
def test_a_cluster_that_cannot_be_is_refused_at_once(
    here: Path, shell: Shell, typed: tuple[str, ...], said: str
) -> None:
    answer = shell("plan", "digits", *typed)
    assert answer.status == 2
    assert said in " ".join(answer.told().split())


def test_failed_trainings_are_exit_status_one_with_a_document(
    here: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The model looks for zeros among its weights, which are not there on sparse kernels.
    words = ("find", "digits", *QUICK, "--model", "nets:thin", "--engine", "dense")
    with monkeypatch.context() as patch:
        patch.setenv("WINTICKET_TEST_THIN", "raises")
        answer = shell(*words, "--json", "--quiet")
        assert (answer.status, answer.err) == (1, "")
        document = json.loads(answer.out)
        assert len(document["failures"]) == 2 * 6  # every training but the dense ones
        assert {row["reason"] for row in document["failures"]} == {
            "KeyError: 'no such thing'",
            "not run: a training that it depends on failed",
        }
        assert document["verdict"]["outcome"] == "inconclusive"
        # Asked again, it knows; and it tries again where it is told to.
        answer = shell(*words)
        assert answer.status == 1
        assert (
            "Nothing to train (2 levels, 2 replicates); 2 trainings are reused from the store; 12 failed before"
            in answer.told()
        )
        assert "failed: ticket at 80.0 %" in answer.told()
        assert "6 failed, 6 skipped because they need a failed one" in answer.told()
    assert shell(*words, "--retry-failed").status == 0
    assert shell(*words, "--quiet").status == 0


def test_a_store_in_memory_is_for_this_process(here: Path, shell: Shell) -> None:
    answer = shell("find", "digits", *QUICK, "--store", "memory://cli", "--json")
    assert answer.status == 0
    document = json.loads(answer.out)
    assert document["store"] == "memory://cli"
    assert Path(document["results"]).is_relative_to("winticket-reports")
    assert (
        json.loads(shell("find", "digits", *QUICK, "--store", "memory://cli", "--json").out)["computed"] == 0
    )


def test_quiet_says_nothing_on_stderr(here: Path, shell: Shell) -> None:
    answer = shell("find", "digits", *QUICK, "--quiet")
    assert (answer.status, answer.err) == (0, "")
    assert "Dense network:" in answer.out
    assert "What to do next" in answer.out


def test_run_takes_a_spec_and_its_variants(here: Path, shell: Shell) -> None:
    (here / "beside.py").write_text("WIDTH = 9\n")
    (here / "own.py").write_text(
        "from dataclasses import dataclass\n"
        "from beside import WIDTH\n"
        "from winticket import Experiment\n"
        "@dataclass(frozen=True)\nclass Row:\n    steps: int = 20\n"
        "experiment = Experiment.of('digits', model=f'lenet-{WIDTH}', levels=1, replicates=2, steps=Row().steps)\n"
        "longer = experiment.but(steps=40, gate=False)\n"
    )
    answer = shell("run", "own.py", "--plan", "--json")
    assert json.loads(answer.out)["experiment"]["model"] == "lenet-9"
    assert not (here / "runs").exists()
    answer = shell("run", "own.py", "--variant", "longer", "--json", "--quiet")
    assert answer.status == 0
    document = json.loads(answer.out)
    assert (document["experiment"]["steps"], document["computed"]) == (40, 4)
    answer = shell("run", "own.py", "--variant", "longer", "--engine", "dense", "--json", "--quiet")
    document = json.loads(answer.out)
    assert (document["engine"], document["computed"]) == ("dense", 0)
    # The advice names options, which `run` has none of.
    shown = shell("run", "own.py", "--variant", "longer", "--quiet").out
    assert "Use at least --replicates 5" in shown
    assert "a field of the experiment in own.py: --replicates 7 is replicates=7." in shown


def test_transfer_goes_on_from_a_result(here: Path, shell: Shell) -> None:
    assert shell("find", "digits", *QUICK, "--out", "digits", "--quiet").status == 0
    sgd = ["transfer", "digits/result.json", "--optimizer", "sgd", "--lr", "0.1", "--density", "0.64"]
    planned = json.loads(shell(*sgd, "--plan", "--json").out)
    # Two replicates: dense and three arms at one level are new; dense and level 1's ticket found the tickets.
    assert (planned["cost"]["trainings"], planned["cost"]["reused"]) == (2 * 4, 2 * 2)
    answer = shell(*sgd, "--out", "sgd", "--json")
    assert answer.status == 0
    document = json.loads(answer.out)
    experiment = document["experiment"]
    assert (experiment["optimizer"], experiment["source"]["optimizer"]) == ("sgd", "adam")
    assert (experiment["carried"], experiment["data"]) == ([2], "digits")
    assert document["store"] == json.loads((here / "digits" / "result.json").read_text())["store"]
    told = shell(*sgd, "--plan").out
    assert "digits, imp with adam 0.0012" in told
    # Its folder will do as well, but not the one ticket that it has a file of.
    assert shell("transfer", "digits", *sgd[2:], "--plan").out == told
    lone = shell("transfer", "digits/ticket.safetensors", *sgd[2:])
    assert lone.status == 2
    assert "is a single ticket, which cannot be judged" in lone.told()
    assert "of all 2 replicates, give digits/result.json." in lone.told()
    above = shell("transfer", ".", "--plan")
    assert above.status == 2
    assert "there is no result.json in the folder .; its subfolders hold digits/result.json" in above.told()
    (here / "runs").rename(here / "moved")
    lost = shell(*sgd, "--plan")
    assert lost.status == 2
    assert (
        "which digits/result.json names, not found: pass its path, or the path of a new one, with --store"
        in lost.told()
    )
    assert shell(*sgd, "--plan", "--store", "moved").status == 0
    (here / "moved").rename(here / "runs")
    wrong = shell("transfer", "digits/result.json", "--to", "mnist1d")
    assert wrong.status == 2
    assert "examples of mnist1d have shape (1, 40)" in wrong.told()


def test_out_keeps_the_report_of_another_experiment(here: Path, shell: Shell) -> None:
    """The same experiment renews its report, with more of it too; another one is refused before any training."""
    find = ("find", "digits", *QUICK, "--quiet", "--out", "kept")
    assert shell(*find).status == 0
    for words, differ in (
        (("--lr", "0.01"), "lr is 0.0012 there and 0.01 here"),
        (("--margin", "1"), "margin pp is 0.5 there and 1 here"),
        (("--method", "one-shot"), "method is imp there and one-shot here"),
        (("--replicates", "1"), "replicates is 2 there and 1 here"),
        (("--levels", "1"), "levels is 2 there and 1 here"),
        (("--control", "reinit"), "controls is reinit, random there and reinit here"),
    ):
        before = listing(here)
        answer = shell(*find, *words)
        assert answer.status == 2
        assert "the output folder 'kept' holds the report of another experiment" in answer.told()
        assert differ in answer.told()
        assert "choose another folder with --out" in answer.told()
        assert listing(here) == before
    other = shell("find", "mnist1d", *QUICK[4:], "--batch", "60", "--model", "lenet-20-10", "--out", "kept")
    assert (other.status, "data is digits there and mnist1d here" in other.told()) == (2, True)
    for more in (
        (),
        ("--engine", "dense"),
        ("--levels", "3"),
        (
            "--levels",
            "3",
            "--replicates",
            "3",
            "--control",
            "reinit",
            "--control",
            "random",
            "--control",
            "signs",
        ),
    ):
        assert shell(*find, *more).status == 0, more
    (here / "kept" / "result.json").write_text("{}")
    answer = shell(*find)
    assert (answer.status, "that is not the result of a search" in answer.told()) == (2, True)


def test_out_keeps_another_comparison(here: Path, shell: Shell) -> None:
    words = [
        "compare",
        "digits",
        "--method",
        "one-shot",
        "--density",
        "0.3",
        "--quiet",
        "--model",
        "lenet-10",
    ]
    words += ["--steps", "20", "--replicates", "2"]
    assert shell(*words).status == 0
    assert (here / "winticket-compare" / "digits-lenet-10-0.3" / "compare.json").is_file()
    before = listing(here)
    answer = shell(*words, "--lr", "0.01")
    assert (answer.status, "lr is 0.0012 there and 0.01 here" in answer.told()) == (2, True)
    assert listing(here) == before
    assert shell(*words, "--method", "set").status == 0


def test_store_ls_verify_gc(here: Path, shell: Shell) -> None:
    assert shell("find", "digits", *QUICK, "--quiet", "--out", "one").status == 0
    assert (
        shell("find", "digits", *QUICK, "--quiet", "--out", "two", "--control", "none", "--seed", "5").status
        == 0
    )
    rows = json.loads(shell("store", "ls", "--json").out)
    assert len(rows) == 10
    assert {row["label"]["arm"] for row in rows} == {"dense", "ticket", "reinit", "random"}
    answer = shell("store", "ls")
    assert len(answer.out.splitlines()) == 10 + 2 + 1  # entries; the question and the heads; the sum
    assert "lenet-20-10 on digits: " in answer.out
    assert "10 entries" in answer.out
    assert "1–2" in answer.out
    answer = shell("store", "verify")
    assert (answer.status, "every byte is as it was written" in answer.out) == (0, True)
    before = listing(here)
    answer = shell("store", "gc", "--keep", "one/result.json", "--dry-run")
    assert answer.out.count("would remove") == 3
    assert listing(here) == before
    answer = shell("store", "gc", "--keep", "one/result.json", "--json")
    gone = json.loads(answer.out)
    assert {Path(row["name"]).stem for row in gone} == set(
        json.loads((here / "two" / "result.json").read_text())["keys"]
    )
    assert len(json.loads(shell("store", "ls", "--json").out)) == 7
    answer = shell("store", "gc", "--keep", "absent.json")
    assert answer.status == 2
    assert "absent.json is not a result document ([Errno 2]" in answer.err
    answer = shell("store", "gc", "--keep", "spec.py")
    assert (answer.status, "is not a result document" in answer.told()) == (2, True)
    victim = next((here / "runs" / "results").rglob("*.safetensors"))
    data = bytearray(victim.read_bytes())
    data[-5] ^= 1
    victim.write_bytes(bytes(data))
    answer = shell("store", "verify")
    assert (answer.status, "damaged: results/" in answer.out) == (1, True)
    assert json.loads(shell("store", "verify", "--json").out)[0]["kind"] == "damaged"
    answer = shell("find", "digits", *QUICK, "--quiet", "--out", "one")
    assert (answer.status, "remove the file" in answer.told()) == (1, True)
    assert shell("store", "gc", "--damaged").status == 0
    assert shell("find", "digits", *QUICK, "--quiet", "--out", "one").status == 0


def test_every_option_is_a_choice_of_the_experiment_and_the_other_way_round() -> None:
    from dataclasses import fields

    from winticket.data.reading import Reading
    from winticket.experiment.spec import CARRIED

    choices = {f.name for cls in (Experiment, Recipe, Reading) for f in fields(cls)}
    # A margin that is typed with a percent sign is relative.
    assert {option.name for option in OPTIONS} == choices - {
        "data",
        "recipe",
        "reading",
        "relative_margin",
        *CARRIED,
    }


# Every option once: what is typed, and what the experiment then has, which is not what it has by itself.
SGD = ("--optimizer", "sgd", "--lr", "0.1")
OF_OWN_DATA = {
    *("label", "ignore", "missing", "task", "group", "time", "size", "alphabet", "unit", "loss"),
    *("tokenizer", "window"),
    *("start", "redraw"),
}
"""Options that digits do not take; tests/data and tests/experiment have data that do."""
TYPED: dict[str, tuple[tuple[str, ...], Any]] = {
    "model": (("--model", "lenet-20-10"), "lenet-20-10"),
    "init": (("--init", "orthogonal"), "orthogonal"),
    "method": (("--method", "one-shot"), "one-shot"),
    "criterion": (("--criterion", "movement"), "movement"),
    "allocate": (("--allocate", "erk"), "erk"),
    "rewind": (("--rewind", "learning_rate"), "learning_rate"),
    "rewind_step": (("--rewind", "learning_rate", "--rewind-step", "5"), 5),
    "every": (("--method", "rigl", "--every", "7"), 7),
    "search_lr": (("--method", "edge-popup", "--search-lr", "0.3"), 0.3),
    "levels": (("--levels", "3"), 3),
    "rate": (("--rate", "0.3"), 0.3),
    "pruning": (("--pruning", "cubic", "--final-density", "0.1"), "cubic"),
    "final_density": (("--final-density", "0.1"), 0.1),
    "density": (("--density", "0.5", "--density", "0.2"), [0.5, 0.2]),
    "output_rate": (("--output-rate", "0.15"), 0.15),
    "conv_rate": (("--model", "conv-2", "--conv-rate", "0.12"), 0.12),
    "include": (("--model", "nets:recurrent", "--levels", "2", "--include", "*.weight_*"), ["*.weight_*"]),
    "exclude": (("--exclude", "fc3.*"), ["fc3.*"]),
    "controls": (("--control", "signs", "--control", "inverted"), ["signs", "inverted"]),
    "replicates": (("--replicates", "7"), 7),
    "margin_pp": (("--margin", "1.5"), 1.5),
    "alpha": (("--alpha", "0.01"), 0.01),
    "gate": (("--no-gate",), False),
    "metric": (("--metric", "balanced-accuracy"), "balanced-accuracy"),
    "class_weights": (("--class-weights", "balanced"), "balanced"),
    "rows": (("--rows", "1000"), 1000),
    "precision_check": (("--precision", "bf16", "--no-precision-check"), False),
    "seed": (("--seed", "11"), 11),
    "stack": (("--stack", "2"), 2),
    "split": (("--split", "shared"), "shared"),
    "validation": (("--validation", "99"), 99),
    "test": (("--test", "101"), 101),
    "steps": (("--steps", "77"), 77),
    "batch": (("--batch", "33"), 33),
    "optimizer": (SGD, "sgd"),
    "lr": (("--lr", "0.02"), 0.02),
    "momentum": ((*SGD, "--momentum", "0.8"), 0.8),
    "nesterov": ((*SGD, "--momentum", "0.8", "--nesterov"), True),
    "weight_decay": (("--weight-decay", "0.01"), 0.01),
    "schedule": (("--schedule", "step"), "step"),
    "milestones": (("--schedule", "step", "--milestone", "0.3", "--milestone", "0.6"), [0.3, 0.6]),
    "gamma": (("--schedule", "step", "--gamma", "0.5"), 0.5),
    "warmup": (("--warmup", "9"), 9),
    "evaluate_every": (("--evaluate-every", "13"), 13),
    "early_points": (("--no-early-points",), False),
    "clip_norm": (("--clip-norm", "0.5"), 0.5),
    "flip": (("--flip",), True),
    "crop": (("--crop", "1"), 1),
    "precision": (("--precision", "bf16"), "bf16"),
    "stacking": (("--stacking", "one by one"), "one by one"),
}


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """What the command `plan` is about to price."""
    asked: list[Plan] = []

    def preview(experiment: Experiment, *_: object, **__: object) -> None:
        asked.append(plan(experiment))

    monkeypatch.setattr(searches, "preview", preview)
    return asked


def test_every_option_is_typed_here() -> None:
    assert set(TYPED) == {option.name for option in OPTIONS} - OF_OWN_DATA


def without(typed: tuple[str, ...], name: str) -> list[str]:
    """The same words but for the option itself and its values."""
    option = next(option for option in OPTIONS if option.name == name)
    flags = (option.flag or "--" + name.replace("_", "-")).split("/")
    taken = 1 if option.kind is bool else 2
    own = {at + more for at, said in enumerate(typed) if said in flags for more in range(taken)}
    return [said for at, said in enumerate(typed) if at not in own]


@pytest.mark.parametrize("name", TYPED)
def test_every_option_does_what_it_says(name: str, here: Path, shell: Shell, heard: list[Plan]) -> None:
    typed, wanted = TYPED[name]
    for words in (typed, without(typed, name)):
        answer = shell("plan", "digits", *words)
        assert answer.status == 0, answer.told()
    asked, other = heard
    here_said, there_said = (
        {**(said := dict(planned.experiment.describe())), **cast("dict[str, Any]", said.get("reading", {}))}
        for planned in (asked, other)
    )
    assert here_said[name] == wanted != there_said.get(name)
    keys = [{t.key for t in planned.tasks.values()} for planned in heard]
    assert (keys[0] == keys[1]) == (name in ("margin_pp", "alpha"))  # these train nothing anew


@pytest.mark.parametrize("name", [option.name for option in OPTIONS if option.kind is bool])
def test_a_switch_can_be_turned_off(name: str, here: Path, shell: Shell, heard: list[Plan]) -> None:
    """Also where it is on by itself; and a word is no switch, since the word False would be true."""
    on, off = next(option for option in OPTIONS if option.name == name).flag.split("/")
    rest = (*SGD, "--momentum", "0.8") if name == "nesterov" else ()
    for typed in ((on,), (off,), (on, off), (off, on)):
        assert shell("plan", "digits", *rest, *typed).status == 0
    assert [dict(asked.experiment.describe())[name] for asked in heard] == [True, False, False, True]
    for word in ("False", "no", 0, 1, None):
        with pytest.raises(TypeError, match=f"{name} is {word!r}; it is True or False"):
            heard[0].experiment.but(**{name: word})


def test_help_teaches(shell: Shell) -> None:
    answer = shell("find", "--help")
    assert answer.status == 0
    for panel in ("Network and pruning", "Proof", "Training", "Computing", "Arguments", "Options"):
        assert f"─ {panel} ─" in answer.out
    assert "winticket find digits" in answer.out
    for option in OPTIONS:
        assert (option.flag or "--" + option.name.replace("_", "-")).split("/")[0] in answer.out
    for flag in ("--store", "--workers", "--ray", "--dask", "--engine", "--retry-failed"):
        assert flag in answer.out
    top = shell("--help")
    assert "Start with: winticket find digits" in top.out
    for name in ("find", "plan", "run", "methods", "info", "store"):
        assert re.search(rf"^│ {name} ", top.out, re.MULTILINE)
    bare = shell()
    assert "Usage:" in bare.out + bare.err


@pytest.mark.parametrize("data", ["digits", "mnist1d"])
def test_help_states_the_defaults_that_hold(data: str) -> None:
    """Of all options whose default in words begins with a value: that one, or the one "for" these data.

    Not of those whose default depends on the model or on another option.
    """
    described: Mapping[str, Any] = Experiment.of(data).describe()
    compared = set()
    for option in OPTIONS:
        if option.name in ("model", "init", "criterion", "allocate", "lr") or option.name not in described:
            continue
        value = described[option.name]
        special = re.search(rf"([\w.]+) for {data}\b", option.default)
        stated = special[1] if special else re.split("[;, ]", option.default)[0]
        if option.kind is bool:
            assert stated.startswith("--no-") is not value, option.name
        elif option.kind in (int, float) and re.fullmatch(r"[\d.]+", stated) and value is not None:
            assert float(stated) == value, option.name
        elif option.kind is str:
            assert stated == value, option.name
        else:
            continue
        compared.add(option.name)
    assert len(compared) >= 22


def test_info_and_version(shell: Shell) -> None:
    from winticket import __version__

    assert shell("--version").out == f"winticket {__version__}\n"
    told = json.loads(shell("info", "--json").out)
    assert set(told) >= {"winticket", "torch", "python", "cores", "device", "cache", "sparse kernels"}
    assert str(told["torch"]) in shell("info").out


def test_methods_lists_everything_with_a_line_and_its_paper(shell: Shell) -> None:
    found = json.loads(shell("methods", "--json").out)
    assert set(found) == {"method", "criterion", "allocate", "pruning", "rewind", "control"}
    assert {"imp", "one-shot", "at-init", "rigl", "edge-popup", "early-bird"} < set(found["method"])
    text = shell("methods").out
    for kind, rows in found.items():
        for name, row in rows.items():
            assert row["line"], (kind, name)
            assert f"  {name} " in text
            assert not row["line"].endswith((".", ";", ",", ":")), (kind, name)
            # A source: some name, and a year.
            assert re.search(r"[A-Z]\w+.* (19|20)\d\d\b", row["paper"] or row["line"]), (kind, name)
            assert not row["paper"].endswith((".", ";", ",", ":")), (kind, name)
    assert found["criterion"]["snip"]["needs"] == "the network and training examples"
    assert "Lee et al. 2019" in found["criterion"]["snip"]["paper"]
    assert found["criterion"]["snip"]["allocate"] == "global_top"
    assert (found["method"]["at-init"]["criterion"], found["method"]["at-init"]["allocate"]) == (
        "snip",
        "global_top",
    )
    assert (found["method"]["edge-popup"]["criterion"], found["method"]["rigl"]["allocate"]) == ("", "erk")
    assert re.search(r"^  wanda .*\n +default: --allocate constant_fan_in$", text, re.MULTILINE)
    assert re.search(r"^  at-init .*\n +default: --criterion snip --allocate global_top$", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--density", "1.5"), "density is 1.5; it must lie in (0, 1)"),
        (("--method", "rigle"), "unknown method 'rigle' (did you mean 'rigl'?)"),
        (("--method", "at-init:snipp"), "unknown criterion 'snipp' (did you mean 'snip'?)"),
        (("--workers", "0"), "workers is 0; give the number of processes"),
        (("--model", "lenet-0"), "there is no model 'lenet-0'"),
    ],
)
def test_a_comparison_that_cannot_be_is_refused(
    here: Path, shell: Shell, words: tuple[str, ...], told: str
) -> None:
    before = set(here.iterdir())
    answer = shell("compare", "digits", *words)
    assert answer.status == 2
    assert told in answer.told()
    assert set(here.iterdir()) == before


def test_compare_prints_one_document_or_two_tables(here: Path, shell: Shell) -> None:
    words = ["compare", "digits", "--method", "one-shot", "--method", "set", "--density", "0.3", "--quiet"]
    words += ["--model", "lenet-10", "--steps", "20", "--replicates", "2"]
    document = json.loads(shell(*words, "--json").out)
    assert [row["method"] for row in document["rows"]] == ["dense", "one-shot", "set"] * 2
    text = shell(*words).out
    assert "Equal steps per training" in text
    assert "Equal steps in total, including the search" in text


@pytest.mark.parametrize(
    ("word", "given", "meant"),
    [("criterion", "synflo", "synflow"), ("allocate", "ekr", "erk"), ("method", "atinit", "at-init")],
)
def test_an_unknown_name_offers_the_nearest(shell: Shell, word: str, given: str, meant: str) -> None:
    answer = shell("plan", "digits", f"--{word}", given)
    assert answer.status == 2
    assert f"unknown {word} {given!r} (did you mean {meant!r}?)" in answer.told()


def test_a_mistake_of_ours_keeps_its_traceback(
    here: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only requests are answered in a line: a bug that looks like one would otherwise blame the user."""

    def broken(*_: object) -> Any:
        raise ValueError("a bug")

    monkeypatch.setattr(outcome, "document", broken)
    monkeypatch.setattr(sys, "argv", ["winticket", "find", "digits", *QUICK, "--quiet"])
    with pytest.raises(ValueError, match="a bug"):
        main()


def test_ctrl_c_while_planning(here: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(*_: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "output_folder", pressed)
    answer = shell("find", "digits", *QUICK)
    assert (answer.status, answer.told()) == (
        130,
        "Stopped; what was finished is kept, and the same command resumes from there",
    )


def test_the_real_command(here: Path) -> None:
    """In processes of their own: a wrong request, and a search by two workers that draws its figures."""
    before = listing(here)
    answer = python("find", "digts")
    assert (answer.status, answer.out) == (2, "")
    assert answer.err.startswith("Error: unknown dataset 'digts' (did you mean 'digits'?)")
    assert answer.err.count("\n") == 1
    assert listing(here) == before
    # As it is installed, with a model that lies in the folder one is in, which the workers find too.
    script = [str(Path(sys.executable).parent / "winticket"), "find", "digits", *QUICK]
    words = ["--model", "nets:build", "--store", "kept", "--out", "kept/report", "--workers", "2", "--json"]
    done = subprocess.run([*script, *words], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["computed"], document["failures"]) == (7, [])
    assert document["experiment"]["model"] == "nets:build"
    for name in ("ticket", "report", "results", "curves"):
        assert Path(document[name]).stat().st_size > 0
    assert {Path(figure).suffix for figure in document["figures"]} >= {".png", ".svg"}


def test_a_warning_about_data_is_one_readable_line(
    here: Path, shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    for label in ("cat", "dog"):
        (here / "pets" / label).mkdir(parents=True)
        for number in range(20):
            Image.new("L", (8, 8), color=(number * 12 + len(label)) % 256).save(
                here / "pets" / label / f"{number}.png"
            )
    monkeypatch.setenv("WINTICKET_CACHE", str(here / "afile"))
    with warnings.catch_warnings():
        warnings.resetwarnings()  # which are no errors outside of tests
        answer = shell("plan", "pets", *QUICK, "--batch", "8", "--json")
    assert answer.status == 0
    assert json.loads(answer.out)["cost"]["trainings"] == 14
    assert answer.err.startswith("Warning: the decoded images of pets could not be kept")
    assert answer.err.count("\n") == 1


def test_ship_writes_a_small_file_and_says_what_it_is(shell: Shell, here: Path) -> None:
    out = ["--out", "found"]
    assert shell("find", "digits", *QUICK, *out, "--quiet").status == 0
    document = json.loads((here / "found" / "result.json").read_text())
    saved = document["saved_ticket"]
    answer = shell("ship", "found")
    assert answer.status == 0
    name = f"ticket-{100 * saved['density']:.3g}pct-r{saved['replicate'] + 1}"
    assert sorted(file.name for file in (here / "found" / "ship").iterdir()) == [
        f"{name}-fp32.safetensors",
        f"{name}-fp32.safetensors.md",
    ]
    said = " ".join(answer.out.split())
    accuracy = f"{100 * saved['test_accuracy']:.2f} %"
    for words in (
        f"lenet-20-10 for digits: arm ticket, {100 * saved['density']:.1f} % of the weights",
        "Tickets of this density are not shown to win.",
        f"this file, read back, on 450 examples {accuracy}",
        f"this network, as its training recorded it {accuracy}",
        "mean of 2 replicates",
        "times smaller than dense",
        "0 of 450 answers differ",
        "winticket.ship.SparseModel.load(",
    ):
        assert words in said
    assert shell("ship", "found/ticket.safetensors", "--json").status == 0
    again = json.loads(shell("ship", "found/result.json", "--json").out)
    assert again["origin"]["replicate"] == saved["replicate"]
    assert again["read_back"]["test_accuracy"] == saved["test_accuracy"]
    assert again["bytes"] == (here / again["file"]).stat().st_size


def test_ship_takes_any_network_of_the_run(shell: Shell, here: Path) -> None:
    assert shell("find", "digits", *QUICK, "--out", "found", "--quiet").status == 0
    accuracies = [
        level["arms"] for level in json.loads((here / "found" / "result.json").read_text())["levels"]
    ]
    for words, cell in (
        (["--arm", "dense", "--replicate", "2"], (0, "dense", 1)),
        (["--level", "1", "--replicate", "1", "--to", "torch"], (1, "ticket", 0)),
        (["--arm", "reinit", "--density", "0.6", "--replicate", "2", "--values", "int8"], (2, "reinit", 1)),
    ):
        shipped = json.loads(shell("ship", "found", "--out", "small", "--json", *words).out)
        level, arm, replicate = cell
        origin = shipped["origin"]
        assert (origin["level"], origin["arm"], origin["replicate"]) == cell
        assert origin["test_accuracy"] == accuracies[level][arm]["accuracies"][replicate]
    assert len(list((here / "small").iterdir())) == 6
    for words, message in (
        (["--replicate", "3"], "replicate is 3; the run has 1 to 2"),
        (["--replicate", "0"], "replicate is 0; the run has 1 to 2"),
        (["--arm", "signs"], "the run has no arm 'signs'"),
        (["--store", "empty"], "has no training of arm 'ticket'"),
    ):
        answer = shell("ship", "found", "--out", "none", *words)
        assert (answer.status, answer.out) == (2, "")
        assert message in answer.told()
    assert not (here / "none").exists()


def test_ship_writes_c_of_a_run_and_takes_a_folder_with_a_trained_ticket_alone(
    shell: Shell, here: Path
) -> None:
    assert shell("find", "digits", *QUICK, "--out", "found", "--quiet").status == 0
    answer = shell("ship", "found", "--to", "c", "--name", "digits", "--out", "small")
    assert answer.status == 0
    assert sorted(file.name for file in (here / "small").iterdir()) == ["digits.c", "digits.c.md", "digits.h"]
    said = " ".join(answer.out.split())
    for words in ("flash", "of constants", "RAM", "input and output 296 bytes", "digits_run(input, output);"):
        assert words in said
    (here / "alone").mkdir()
    trained(open_run(here / "found")).ticket.save(here / "alone" / "ticket.safetensors")
    alone = json.loads(shell("ship", "alone", "--to", "c", "--name", "digits", "--json").out)
    assert alone["file"] == str(Path("alone", "ship", "digits.c"))
    assert (here / "alone" / "ship" / "digits.c").read_text() == (here / "small" / "digits.c").read_text()
    assert shell("ship", "alone", "--to", "web", "--name", "digits").status == 0
    assert (here / "alone" / "ship" / "digits-fp32.html").is_file()
    refused = shell("ship", "alone", "--level", "1")
    assert refused.status == 2
    assert "is one network" in refused.told()


def test_ship_refuses_a_ticket_that_is_not_of_the_run_beside_it(shell: Shell, here: Path) -> None:
    assert shell("find", "digits", *QUICK, "--out", "found", "--quiet").status == 0
    ticket = Ticket.load(here / "found" / "ticket.safetensors")
    other = {name: keep.roll(1) for name, keep in ticket.mask.keep.items()}
    Ticket(Mask(other), ticket.start, "ticket", ticket.seeds, ticket.about).save(
        here / "found" / "other.safetensors"
    )
    answer = shell("ship", "found/other.safetensors")
    assert answer.status == 2
    assert "is not the ticket of a run in the same folder" in answer.told()


def test_a_margin_may_be_a_share_of_the_dense_networks_value(
    here: Path, shell: Shell, heard: list[Plan]
) -> None:
    for typed in ("0.3", "2%", "2 %"):
        assert shell("plan", "digits", "--margin", typed).status == 0
    asked = [(planned.experiment.margin_pp, planned.experiment.relative_margin) for planned in heard]
    assert asked == [(0.3, False), (2.0, True), (2.0, True)]
    refused = shell("plan", "digits", "--margin", "two")
    assert refused.status == 2
    assert "'two' is not a margin" in refused.told()
    for typed in ("0", "0%", "100%", "nan", "inf"):
        assert shell("plan", "digits", "--margin", typed).status == 2, typed
