"""`winticket lm find`, `prune`, `tune` and `perplexity`: language models of Transformers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from winticket.cli.adapting import adapter
from winticket.cli.answers import answer, computing, computing_at_once, flowing, print_json, request, show
from winticket.cli.language_tickets import find
from winticket.cli.options import AsJson, Quiet
from winticket.cli.progress import patient

app = typer.Typer(
    no_args_is_help=True,
    help="Language models: find tickets in them, prune them without training, tune them under their masks, and measure "
    "their perplexity.",
)
ModelPath = Annotated[
    str,
    typer.Argument(
        metavar="PATH",
        help="Folder of a causal language model as Transformers saves it (config.json, *.safetensors, tokenizer), a "
        "GGUF file or a folder with one, or a name on the Hub (user/name).",
    ),
]
TEXT = (
    "a UTF-8 file, a .jsonl file with a document in each line (under the key text), or a folder with a document in "
    "each .txt file"
)
Data = Annotated[Path, typer.Option("--data", metavar="TEXT", help=f"Text to evaluate on: {TEXT}.")]
Calibration = Annotated[
    Path,
    typer.Option(
        "--data",
        metavar="TEXT",
        help=f"Text for calibration: {TEXT}. Without --held-out, its last fifth is kept for measuring perplexity.",
    ),
]
TuningText = Annotated[
    Path,
    typer.Option(
        "--data",
        metavar="TEXT",
        help=f"Text to tune on: {TEXT}. Without --held-out, its last fifth is kept for measuring perplexity.",
    ),
]
HeldOut = Annotated[
    Path | None,
    typer.Option(
        "--held-out",
        metavar="TEXT",
        help="Text on which perplexity is measured before and after, in any format that --data takes.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="New folder for the pruned model. Default: PATH's name and the method's, such as smol-wanda, in the "
        "working folder.",
    ),
]
TunedOut = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="New folder for the tuned model. Default: PATH's name and -tuned, in the working folder.",
    ),
]
Method = Annotated[
    str,
    typer.Option(
        "--method",
        help="Which weights are kept. magnitude: the largest of each layer. wanda: in each row, the largest by |w| "
        "times the norm of the input. sparsegpt: those that the others could least compensate for; kept weights are "
        "changed to compensate for pruned ones.",
    ),
]
Density = Annotated[
    float | None,
    typer.Option(
        "--density", help="Share of the weights of the blocks' linear layers to keep. Default: 0.5."
    ),
]
PatternText = Annotated[
    str | None,
    typer.Option("--pattern", metavar="N:M", help="Keep N of every M consecutive inputs, such as 2:4."),
]
Allocation = Annotated[
    str,
    typer.Option(
        "--allocation",
        help="uniform: the same density in every block. owl: blocks with more outliers among their scores keep more "
        "weights.",
    ),
]
Threshold = Annotated[
    float, typer.Option("--owl-threshold", help="M of OWL: scores above M times the mean score are outliers.")
]
Range = Annotated[
    float,
    typer.Option(
        "--owl-range", help="Lambda of OWL: the largest and smallest density of a block differ by twice this."
    ),
]
Samples = Annotated[
    int, typer.Option("--samples", help="Number of windows of calibration text; magnitude needs none.")
]
Length = Annotated[
    int | None,
    typer.Option("--length", help="Tokens per window. Default: 2048, or fewer if the model reads fewer."),
]
Seed = Annotated[
    int, typer.Option("--seed", help="Seed of the positions at which calibration windows begin.")
]
Blocksize = Annotated[
    int,
    typer.Option("--blocksize", help="Number of inputs whose weights SparseGPT chooses at a time."),
]
Percdamp = Annotated[
    float,
    typer.Option("--percdamp", help="What SparseGPT adds to the Hessian's diagonal, as a share of its mean."),
]
Windows = Annotated[
    int,
    typer.Option(
        "--windows",
        help="Largest number of windows of held-out text on which perplexity is measured; 0 skips the measurement.",
    ),
]
EvaluatedWindows = Annotated[
    int,
    typer.Option("--windows", help="Largest number of windows, which are spread evenly over the text."),
]
MaskPath = Annotated[
    Path | None,
    typer.Option(
        "--mask", help="Folder or file with the masks. Default: the masks beside the model at PATH."
    ),
]
Steps = Annotated[int, typer.Option("--steps", help="Optimiser steps.")]
Batch = Annotated[int, typer.Option("--batch", help="Windows of text per step.")]
Rate = Annotated[
    float | None,
    typer.Option("--lr", help="Learning rate of AdamW at the first step. Default: 1e-5; 2e-4 with --lora."),
]
Rank = Annotated[
    int | None,
    typer.Option("--lora", metavar="RANK", help="Train only updates of this rank, in the pruned layers."),
]
Lota = Annotated[
    float | None,
    typer.Option(
        "--lota",
        metavar="DENSITY",
        help="Train only this share of the linear layers' weights: those that change most if all weights are tuned "
        "(LoTA).",
    ),
]
LotaRank = Annotated[
    int | None,
    typer.Option(
        "--lota-rank",
        metavar="R",
        help="Instead of --lota: train only R times (inputs + outputs) weights of each linear layer, as many numbers "
        "as --lora R trains.",
    ),
]
CalibrationSteps = Annotated[
    int | None,
    typer.Option(
        "--calibration-steps",
        help="Steps for which all weights are tuned to choose those of --lota. Default: the number of --steps.",
    ),
]
TuneSeed = Annotated[
    int, typer.Option("--seed", help="Seed of the order of windows and of the updates' initial values.")
]
TunedWindows = Annotated[
    int,
    typer.Option(
        "--windows", help="Largest number of windows of held-out text on which perplexity is measured."
    ),
]


def _sleep_while_waiting() -> None:
    """Let threads sleep while they wait for one another, unless the user has said otherwise.

    OpenMP's burn their cores, and two of them took 2.5 to 4.5 times as long beside other work. It reads the variable
    when torch is imported.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def prune(
    path: ModelPath,
    *,
    data: Calibration,
    held_out: HeldOut = None,
    out: Out = None,
    method: Method = "wanda",
    density: Density = None,
    pattern: PatternText = None,
    allocation: Allocation = "uniform",
    owl_threshold: Threshold = 5.0,
    owl_range: Range = 0.08,
    samples: Samples = 128,
    length: Length = None,
    seed: Seed = 0,
    blocksize: Blocksize = 128,
    percdamp: Percdamp = 0.01,
    windows: Windows = 64,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Prune the language model at PATH without training: magnitude, Wanda or SparseGPT.

    All linear layers inside the transformer blocks are pruned, block by block; embeddings and the output layer are not.
    Transformers' from_pretrained loads the output folder. It also has the masks, the perplexity on held-out text before
    and after, and a README.

    Finished blocks are kept: after Ctrl-C, the same command resumes.

    [bold]winticket lm prune models/smol --data book.txt --method sparsegpt --out smol-half[/bold]

    [bold]winticket lm prune models/smol --data book.txt --pattern 2:4 --out smol-2-4[/bold]
    """
    _sleep_while_waiting()
    with request(), patient(quiet=quiet) as say:
        from winticket.lm import Request, prepare
        from winticket.lm import prune as pruned
        from winticket.lm.card import sentences
        from winticket.lm.state import PruningState, load_state

        asked = Request(
            method=method,
            density=density,
            pattern=pattern,
            allocation=allocation,
            owl_threshold=owl_threshold,
            owl_range=owl_range,
            samples=samples,
            length=length,
            seed=seed,
            blocksize=blocksize,
            percdamp=percdamp,
            windows=windows,
        )
        prepared = prepare(path, asked, data, held_out, say=say)
        folder = out or Path(f"{prepared.source.title()}-{method}")
        load_state(folder, prepared.identity, PruningState)
    with computing(), patient(quiet=quiet) as say:
        result = pruned(prepared, folder, say=say)
    answer(result, (*sentences(result), f"Wrote {folder}"), kept=folder / "result.json", as_json=as_json)


def tune(
    path: ModelPath,
    *,
    data: TuningText,
    held_out: HeldOut = None,
    mask: MaskPath = None,
    out: TunedOut = None,
    steps: Steps = 500,
    batch: Batch = 4,
    lr: Rate = None,
    lora: Rank = None,
    lota: Lota = None,
    lota_rank: LotaRank = None,
    calibration_steps: CalibrationSteps = None,
    length: Length = None,
    seed: TuneSeed = 0,
    windows: TunedWindows = 64,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Tune the language model at PATH on a text, under the mask with which it was pruned.

    By default all weights are trained, and pruned ones are exactly 0 after every step. With --lora, only low-rank
    updates of the pruned layers are trained; they are masked as well, and merged at the end. The command checks that
    all pruned weights in the result are 0. Transformers' from_pretrained loads the output folder. It also has the
    masks, the perplexity on held-out text before and after, and a README.

    With --lota, only a few weights of the linear layers are trained (Lottery Ticket Adaptation), and the model may be
    dense. All weights are tuned for --calibration-steps, those that changed most are chosen, the model is rewound, and
    only the chosen weights are trained. The command checks that all other weights are unchanged, bit for bit.

    The state is saved every ten seconds, or less often if it is large. If the command is interrupted, or the machine
    fails, the same command resumes and writes the same bits.

    [bold]winticket lm tune smol-half --data book.txt --lora 8 --out smol-half-tuned[/bold]

    [bold]winticket lm tune models/smol --data book.txt --lota .1 --out smol-book[/bold]
    """
    _sleep_while_waiting()
    with request(), patient(quiet=quiet) as say:
        from winticket.lm import Tuning, prepare_tuning
        from winticket.lm import tune as tuned
        from winticket.lm.state import TuningState, load_state
        from winticket.lm.tuned_card import sentences

        asked = Tuning(steps, batch, lr, lora, length, seed, windows, lota, lota_rank, calibration_steps)
        prepared = prepare_tuning(path, asked, data, held_out, mask, say=say)
        folder = out or Path(f"{prepared.source.title()}-tuned")
        load_state(folder, prepared.identity, TuningState)
    with computing(), patient(quiet=quiet) as say:
        result = tuned(prepared, folder, say=say)
    answer(result, (*sentences(result), f"Wrote {folder}"), kept=folder / "result.json", as_json=as_json)


def perplexity(
    path: ModelPath,
    *,
    data: Data,
    length: Length = None,
    windows: EvaluatedWindows = 64,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Measure the perplexity of the language model at PATH on a text, with a 95 % interval.

    The text is cut into windows that do not overlap; each token is predicted from those before it in its window. The
    interval is Student's t interval over documents, or over windows if the text is a single document.

    [bold]winticket lm perplexity smol-half --data held-out.txt --length 512[/bold]
    """
    _sleep_while_waiting()
    with request(), patient(quiet=quiet) as say:
        from winticket.lm.evaluating import evaluate, prepare_text

        prepared = prepare_text(path, data, length=length, most=windows, say=say)
    with computing_at_once(), patient(quiet=quiet) as say:
        result = evaluate(prepared, say=say)
    if as_json:
        print_json(result)
        return
    from winticket.lm.card import number, windows_in_words

    show(f"Perplexity on {windows_in_words(result)}: {number(result['perplexity'])}")


_COMMANDS: tuple[Any, ...] = (find, prune, tune, perplexity, adapter)
for _command in _COMMANDS:
    app.command(help=flowing(_command.__doc__))(_command)
