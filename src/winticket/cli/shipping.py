"""`winticket ship`: a trained network of a run, or of a compact file, as a small file with a card."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from winticket.cli.answers import print_json, printed, request, say, show
from winticket.cli.options import AsJson, number
from winticket.cli.shipping_models import language_model, ship_model
from winticket.places import RESULT, SHIPPED, TICKET
from winticket.text import console

if TYPE_CHECKING:
    from winticket.experiment import TrainedNetwork
    from winticket.results import Shipment

Run = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="Folder or result.json of a finished search or transfer, its ticket.safetensors, a trained ticket that "
        "`save` has written, or a compact file, to be written in another format. Or a language model: the folder that "
        "`winticket lm prune` or `tune` wrote, or the compact file of one.",
    ),
]
Arm = Annotated[
    str,
    typer.Option(
        "--arm",
        help="Kind of network (arm): ticket, dense, reinit, random, or another control of the run.",
    ),
]
Level = Annotated[
    int | None,
    typer.Option(
        "--level",
        help="Number of the level, 0 for the dense network. Default: the level of the saved ticket.",
        parser=number("--level", int),
    ),
]
Density = Annotated[
    float | None,
    typer.Option(
        "--density",
        help="Instead of --level: the level nearest to this density.",
        parser=number("--density", float),
    ),
]
Replicate = Annotated[
    int | None,
    typer.Option(
        "--replicate",
        help="Replicate, counted from 1. Default: the one with the best validation accuracy.",
        parser=number("--replicate", int),
    ),
]
To = Annotated[
    str,
    typer.Option(
        "--to",
        help="Format: safetensors or compact (a compact file, which needs only numpy to be read), torch (a state "
        "dict, dense), onnx (dense), tflite (for phones: the file is small, but computed densely), tflite-sparse (for "
        "LiteRT's sparse kernels, which need an interpreter without delegates), c (C99 for microcontrollers), hub (a "
        "folder for the Hugging Face Hub; of a language model, one that from_pretrained loads) or web (a page on which "
        "you draw or choose an input, and see what this network and the dense one answer).",
    ),
]
Values = Annotated[
    str | None,
    typer.Option(
        "--values",
        help="How kept weights are stored: fp32 or int8; in a compact file also fp16 or bf16; in the folder of a "
        "language model fp32, fp16 or bf16. All but fp32 round, and the command says what that costs. Default: fp32; "
        "if RUN is a compact file, as that file stores them.",
    ),
]
Shrink = Annotated[
    bool,
    typer.Option(
        "--shrink",
        help="Remove units, filters and inputs that the mask has cut off. No format does so by itself: compact files, "
        "C and TFLite store no pruned weights, but all units; ONNX and state dicts store everything.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        help="Folder for the file and its card. Default: ship/ beside the result; for a compact file, its own.",
    ),
]
Name = Annotated[
    str,
    typer.Option(
        "--name",
        help="Name of the file, without its ending; in C, what its functions begin with. Default: arm, density and "
        "replicate; for a compact file, its own.",
    ),
]
StoreOfRun = Annotated[
    str | None,
    typer.Option(
        "--store", help="Folder or URL that has the trainings. Default: the store that the result names."
    ),
]
Trust = Annotated[
    list[str] | None,
    typer.Option(
        "--trust",
        metavar="NAME",
        help="Import, download or open this module, Hub dataset or store URL if the run names it; otherwise the "
        "command refuses to. May be repeated.",
    ),
]


def ship(
    run: Run,
    *,
    arm: Arm = "ticket",
    level: Level = None,
    density: Density = None,
    replicate: Replicate = None,
    to: To = "safetensors",
    values: Values = None,
    shrink: Shrink = False,
    name: Name = "",
    out: Out = None,
    store: StoreOfRun = None,
    trust: Trust = None,
    as_json: AsJson = False,
) -> None:
    """Ship a trained network of RUN: write it to a small file, read it back, evaluate it, and add a model card.

    By default this is the saved ticket as its training left it. --arm, --density (or --level) and --replicate choose
    any other network of the run; its weights come from the store, and nothing is trained.

    The compact file, the default, holds only the masks and the kept weights; the masks take little more space than
    their entropy. For C, the command states how much of a microcontroller's flash and RAM the network takes. An ONNX
    file is as large as the dense network's. Only a state dict keeps BatchNorm layers; all other formats fold them into
    the layers before them.

    --shrink writes a smaller network with the same outputs, and index maps in a file beside it: they say which units
    and inputs of the original are left, so that the network can be expanded again.

    RUN may be a language model that was pruned. Its compact file (--to compact) holds everything in the folder but the
    pruned weights, in the types that they have; --to hub makes of the file the same folder again, bit for bit.

    RUN may be a compact file without its run. Then nothing can be evaluated: the new file is compared with the old one
    on noise, and the card repeats what the old file says about itself.

    Networks of Linear, Conv1d and Conv2d layers, BatchNorm, pooling, sums, concatenations and the usual activations can
    be shipped; any other operation is refused by name.

    [bold]winticket ship runs/digits[/bold]

    [bold]winticket ship runs/digits --density 0.1 --values fp16[/bold]

    [bold]winticket ship runs/digits --to c --values int8 --name digits[/bold]

    [bold]winticket ship runs/digits --to onnx --shrink[/bold]

    [bold]winticket ship ticket-4.8pct-r1-fp32.safetensors --to tflite[/bold]

    [bold]winticket ship smol-half --to compact[/bold]
    """
    with request():
        from winticket.ship.choices import COMPACT, check, check_name

        to = "safetensors" if to == COMPACT else to
        check(to, values or "fp32")
        if model := language_model(run):
            check_name(name)
            _refuse_which(run, arm, (level, density, replicate))
            unused = {"--values": values, "--shrink": shrink, "--store": store, "--trust": trust}
            shipped = ship_model(run, model, out, to=to, name=name, unused=unused)
        elif _is_compact(run):
            _refuse_choices(run, arm, (level, density, replicate), store, trust)
            shipment = _converted(run, out, to=to, values=values, name=name, shrink=shrink)
        else:
            shipment = _of_run(
                run, arm, (level, density, replicate), store, trust or [],
                out=out, to=to, values=values or "fp32", name=name, shrink=shrink,
            )  # fmt: skip
    if model:
        shipped.show(as_json=as_json)
        return
    with printed(shipment["file"]):
        if as_json:
            print_json(shipment)
        else:
            _print(shipment)


def _is_compact(run: Path) -> bool:
    """Whether RUN is a compact file, or a folder of one, and no run."""
    from winticket.ship.converting import is_compact

    if run.is_dir() and any((run / name).is_file() for name in (RESULT, TICKET)):
        return False
    return is_compact(run) is True


def _refuse_choices(
    run: Path,
    arm: str,
    which: tuple[int | None, float | None, int | None],
    store: str | None,
    trust: list[str] | None,
) -> None:
    """ValueError for options that choose from a run or open one, if RUN is one network."""
    _refuse_which(run, arm, which)
    refuse_run(run, store, trust)


def refuse_run(run: Path, store: str | None, trust: list[str] | None) -> None:
    """ValueError for options that open a run, if there is none."""
    if store is not None or trust:
        raise ValueError(f"{run} is a compact file, which has no run; --store and --trust are for runs")


def _refuse_which(run: Path, arm: str, which: tuple[int | None, float | None, int | None]) -> None:
    if arm != "ticket" or any(choice is not None for choice in which):
        raise ValueError(f"{run} is one network; --arm, --level, --density and --replicate choose from a run")


def _converted(
    run: Path, out: Path | None, *, to: str, values: str | None, name: str, shrink: bool
) -> Shipment:
    from winticket.ship.converting import convert
    from winticket.ship.format import ShipmentError

    try:
        return convert(run, out, to=to, values=values, name=name, shrink=shrink)
    except ShipmentError as error:
        say(f"Error: {error}")
        raise typer.Exit(1) from error


def _of_run(
    run: Path,
    arm: str,
    which: tuple[int | None, float | None, int | None],
    store: str | None,
    trust: list[str],
    *,
    out: Path | None,
    **how: Any,
) -> Shipment:
    network = chosen_network(run, arm, which, store, trust)
    dense = _dense(run, network, store, trust) if how["to"] == "web" else None
    folder = out or (run if run.is_dir() else run.parent) / SHIPPED
    return _shipped(network, folder, dense=dense, **how)


def chosen_network(
    run: Path,
    arm: str,
    which: tuple[int | None, float | None, int | None],
    store: str | None,
    trust: list[str],
) -> TrainedNetwork:
    """The network that was asked for."""
    from winticket.experiment import open_run, trained

    run = _ticket_alone(run)
    if run.suffix == ".safetensors":
        _refuse_which(run, arm, which)
        return _of_ticket(run, store, trust)
    level, density, replicate = which
    opened = open_run(run, store=store, trust=trust)
    first = counted_from_0(replicate, opened.plan.experiment.replicates)
    return trained(opened, arm=arm, level=level, density=density, replicate=first)


def counted_from_0(replicate: int | None, count: int) -> int | None:
    """A replicate of `count` counted from 1, as the run counts it. ValueError if there is no such one."""
    if replicate is not None and not 1 <= replicate <= count:
        raise ValueError(f"replicate is {replicate}; the run has 1 to {count}")
    return None if replicate is None else replicate - 1


def _ticket_alone(run: Path) -> Path:
    """The ticket's file, if RUN is a folder with one and without a run's result; else RUN."""
    alone = run.is_dir() and not (run / RESULT).is_file() and (run / TICKET).is_file()
    return run / TICKET if alone else run


def _of_ticket(file: Path, store: str | None, trust: list[str]) -> TrainedNetwork:
    """The network of a ticket file: the end of a training, or the start of one of the run in the same folder."""
    from winticket.bits import same_bits
    from winticket.experiment import from_ticket, open_run, trained
    from winticket.ticket import Ticket

    ticket = Ticket.load(file)
    if "trained" in ticket.about:
        return from_ticket(ticket, trust=trust)
    level = ticket.about.get("level")
    if isinstance(level, int) and file.with_name(RESULT).is_file():
        opened = open_run(file.parent, store=store, trust=trust)
        network = trained(opened, level=level, replicate=ticket.seeds.replicate)
        if same_bits(network.ticket.mask.keep, ticket.mask.keep):
            return network
    raise ValueError(
        f"{file} holds the start of a training, not its end, and is not the ticket of a run in the same folder; give "
        f"the folder of the run, the one with its {RESULT}. Ship a network of your own loop from Python: "
        "call winticket.ship.capture and winticket.ship.save"
    )


def _dense(run: Path, network: TrainedNetwork, store: str | None, trust: list[str]) -> TrainedNetwork | None:
    """The dense network of the same replicate, for a page; None if RUN is one network, or that is the dense one."""
    from winticket.experiment import open_run, trained

    if _ticket_alone(run).suffix == ".safetensors" or network.origin["arm"] == "dense":
        return None
    opened = open_run(run, store=store, trust=trust)
    return trained(opened, arm="dense", level=0, replicate=network.origin["replicate"])


def _shipped(network: TrainedNetwork, folder: Path, *, dense: TrainedNetwork | None, **how: Any) -> Shipment:
    from winticket.ship.format import ShipmentError

    try:
        return network.ship(folder, dense=dense, **how)
    except ShipmentError as error:
        say(f"Error: {error}")
        raise typer.Exit(1) from error


def _print(shipment: Shipment) -> None:
    """What was written, how large it is and how accurate, in two small tables, and how to use it."""
    from winticket.ship.card_accuracy import accuracy_rows, cost_sentence, scale_of
    from winticket.ship.card_size import removed_sentence, size_rows

    show(_headline(shipment))
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in size_rows(shipment):
        table.add_row(name, value)
    for name, value in accuracy_rows(shipment):
        table.add_row(f"test {scale_of(shipment).name}: {name}", value)
    table.add_row("file", shipment["file"])
    for path in shipment["beside"]:
        table.add_row("beside it", path)
    table.add_row("model card", shipment["card"])
    console().print(table)
    for sentence in (cost_sentence(shipment), removed_sentence(shipment)):
        if sentence:
            show(sentence if sentence.endswith(".") else f"{sentence}.")
    for note in (shipment["shrunk"] or {"notes": []})["notes"]:
        show(note)
    show("\nTo use it:")
    for line in shipment["use"]:
        show(f"  {line}" if line else "")


def _headline(shipment: Shipment) -> str:
    from winticket.ship.card import standing
    from winticket.ship.words import density_percent

    origin, claims = shipment["origin"], shipment["claims"]
    if origin is not None:
        return (
            f"{origin['model']} for {origin['data']}: arm {origin['arm']}, {density_percent(origin['density'])} of the "
            f"weights, replicate {origin['replicate'] + 1}. {standing(origin)}"
        )
    said = "; ".join(f"{name} {value}" for name, value in (claims or {"said": {}})["said"].items())
    kept = f"{shipment['kept']:,} of {shipment['weights']:,} weights of layers are kept."
    return f"{kept} The compact file says of itself, unchecked: {said or 'nothing'}."
