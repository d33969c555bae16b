"""C as a format of `winticket ship`: a C99 file and its header, computed by a program that a compiler makes of them."""

from __future__ import annotations

import math
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from winticket.atomic import replace_file
from winticket.ship.c import c_name, to_c
from winticket.ship.compact_read import decode
from winticket.ship.compact_write import encode
from winticket.ship.format import Format, Logits, NotEvaluated, ShipmentError, Source, Written

COMPILERS = ("cc", "gcc", "clang")
SECONDS = 600
"""The longest that the compiler, and then the program, may take."""
_MAIN = """\
#include <stdio.h>

#include "NAME.h"

int main(void)
{
    static float input[UPPER_INPUTS], output[UPPER_OUTPUTS];

    while (fread(input, sizeof input, 1, stdin) == 1) {
        NAME_run(input, output);
        if (fwrite(output, sizeof output, 1, stdout) != 1)
            return 1;
    }
    return 0;
}
"""


def _named(name: str, values: str) -> str:
    return f"{c_name(name, '' if values == 'fp32' else f'_{values}')}.c"


def _write(source: Source, path: Path, values: str) -> Written:
    network = source.network
    if values != "fp32":  # rounded as the compact file rounds
        network = decode(encode(network, values=values)[0])
    c = to_c(network, name=path.stem)
    header = path.with_suffix(".h")
    replace_file(header, c.header.encode())
    replace_file(path, c.source.encode())
    ends = network.input_shape, network.shapes[network.output]
    buffers = 4 * sum(math.prod(shape) for shape in ends)
    return Written(memory={"flash": c.flash, "scratch": c.scratch, "buffers": buffers}, beside=(header,))


def compiler() -> str | None:
    """The C compiler of this machine; None if there is none."""
    return next((path for name in COMPILERS if (path := shutil.which(name))), None)


def _logits(source: Source, path: Path, x: NDArray[Any]) -> Logits:
    """What a program computes that a C compiler makes of the two files."""
    if (cc := compiler()) is None:
        raise NotEvaluated(f"there is no C compiler here ({', '.join(COMPILERS)})")
    with TemporaryDirectory() as name:
        folder = Path(name)
        for file in (path, path.with_suffix(".h")):
            shutil.copy(file, folder)
        main = _MAIN.replace("NAME", path.stem).replace("UPPER", path.stem.upper())
        (folder / "main_.c").write_text(main)
        compiled = _run([cc, "-std=c99", "-O2", "-o", "program", "main_.c", path.name, "-lm"], folder)
        if compiled.returncode:
            raise NotEvaluated(f"{cc} cannot compile it here: {_last(compiled.stderr)}")
        np.ascontiguousarray(x, np.float32).tofile(folder / "inputs")
        done = _run([folder / "program"], folder)
        outputs = np.fromfile(folder / "stdout", np.float32)
    shape = source.network.shapes[source.network.output]
    if done.returncode or outputs.size != len(x) * math.prod(shape):
        raise ShipmentError(f"the program of {path} ends with status {done.returncode}: {_last(done.stderr)}")
    return outputs.reshape(len(x), *shape)


def _run(command: list[str | Path], folder: Path) -> subprocess.CompletedProcess[bytes]:
    """Run a program from the file `inputs` of the folder into its file `stdout`. NotEvaluated if it cannot run."""
    (folder / "inputs").touch()
    try:
        with (folder / "inputs").open("rb") as stdin, (folder / "stdout").open("wb") as stdout:
            return subprocess.run(
                command, cwd=folder, stdin=stdin, stdout=stdout, stderr=subprocess.PIPE, timeout=SECONDS,
                check=False,
            )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise NotEvaluated(f"{command[0]} takes more than {SECONDS} seconds here") from None
    except OSError as error:
        raise NotEvaluated(f"{command[0]} does not run here: {error.strerror}") from error


def _last(said: bytes) -> str:
    return "".join(said.decode("utf-8", "replace").strip().splitlines()[-1:])


def _use(source: Source, name: str) -> tuple[str, ...]:
    stem = Path(name).stem
    first = (
        f"{stem}_prepare(pixels, input); /* raw data to inputs */"
        if source.network.preprocessing
        else "/* fill input */"
    )
    return (
        f'#include "{stem}.h"',
        "",
        f"static float input[{stem.upper()}_INPUTS], output[{stem.upper()}_OUTPUTS];",
        "",
        first,
        f"{stem}_run(input, output); /* output: the logits */",
    )


C = Format(
    "C99 for microcontrollers, with a header beside it: kept weights alone, no allocation, no libraries",
    _named,
    _write,
    _logits,
    _use,
    "c",
)
"""The format."""
