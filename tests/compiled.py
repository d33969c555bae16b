"""Networks as C, compiled strictly, and run with sanitizers if the compiler has them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pytest

from winticket.ship import CSource

Array = npt.NDArray[np.float32]
FLAGS = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")
SANITIZED = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler (cc)")

# Reads (number of a network, its raw input) again and again. Writes the outputs by its static scratch buffer and by one
# on the heap that begins with nonsense. All buffers have exactly their size, so sanitizers see what exceeds one.
_MAIN = """\
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
INCLUDES
static const struct {
    size_t inputs, outputs, scratch;
    void (*prepare)(const float *, float *);
    void (*run)(const float *, float *);
    void (*run_with)(const float *, float *, float *);
} networks[] = {
ROWS};

int main(void)
{
    int32_t number;

    while (fread(&number, sizeof number, 1, stdin) == 1) {
        const size_t outputs = networks[number].outputs;
        float *input = malloc(networks[number].inputs * sizeof *input);
        float *output = malloc(outputs * sizeof *output);
        float *scratch = malloc(networks[number].scratch * sizeof *scratch);

        if (fread(input, sizeof *input, networks[number].inputs, stdin) != networks[number].inputs)
            return 1;
        if (networks[number].prepare)
            networks[number].prepare(input, input);
        networks[number].run(input, output);
        fwrite(output, sizeof *output, outputs, stdout);
        memset(scratch, 255, networks[number].scratch * sizeof *scratch);
        memset(output, 255, outputs * sizeof *output);
        networks[number].run_with(input, output, scratch);
        fwrite(output, sizeof *output, outputs, stdout);
        free(input);
        free(output);
        free(scratch);
    }
    return 0;
}
"""


@cache
def sanitizers() -> tuple[str, ...]:
    """The flags that build a program with sanitizers, if such a program runs here; else none."""
    with TemporaryDirectory() as folder:
        source = Path(folder) / "empty.c"
        source.write_text("int main(void) { return 0; }\n")
        program = source.with_suffix("")
        try:
            subprocess.run(
                ["cc", *SANITIZED, source, "-o", program], check=True, capture_output=True, timeout=60
            )
            subprocess.run([program], check=True, capture_output=True, timeout=60, env=_surroundings())
        except (subprocess.SubprocessError, OSError):
            return ()
    return SANITIZED


def _surroundings() -> dict[str, str]:
    return {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}  # leaks cannot be looked for under a debugger


class Program:
    """The networks compiled into one program."""

    def __init__(self, networks: Sequence[CSource], folder: Path, *, flags: Sequence[str] = ()) -> None:
        self.networks, self.path = networks, folder / "program"
        rows, includes = [], []
        for one in networks:
            upper = one.name.upper()
            sizes = f"{upper}_INPUTS, {upper}_OUTPUTS, {upper}_SCRATCH"
            prepare = f"{one.name}_prepare" if f" {one.name}_prepare(" in one.header else "0"
            rows.append(f"    {{{sizes}, {prepare}, {one.name}_run, {one.name}_run_with}},\n")
            includes.append(f'#include "{one.name}.h"\n')
            for name, text in one.files.items():
                (folder / name).write_text(text)
        main = _MAIN.replace("INCLUDES", "".join(includes)).replace("ROWS", "".join(rows))
        (folder / "main.c").write_text(main)
        maths = ["-lm"] if any(one.maths for one in networks) else []
        sources = ["main.c", *(f"{one.name}.c" for one in networks)]
        compile_c([*flags, *sanitizers(), *sources, "-o", self.path.name, *maths], folder)

    def outputs(self, x: Sequence[Array]) -> list[Array]:
        """For each network the outputs [N, outputs], for its inputs [N, ...]: raw ones if it has a preprocessing."""
        given = b"".join(
            np.int32(number).tobytes() + example.astype(np.float32).tobytes()
            for number, examples in enumerate(x)
            for example in examples
        )
        done = subprocess.run(
            [self.path], input=given, capture_output=True, timeout=300, env=_surroundings(), check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        floats, parts, at = np.frombuffer(done.stdout, np.float32), [], 0
        for network, examples in zip(self.networks, x, strict=True):
            size = int(network.header.split("_OUTPUTS ")[1].split()[0])
            both = floats[at : at + 2 * len(examples) * size].reshape(len(examples), 2, size)
            assert both[:, 0].tobytes() == both[:, 1].tobytes()  # with either scratch buffer
            parts.append(both[:, 0])
            at += both.size
        assert at == len(floats)
        return parts


def compile_c(arguments: Sequence[str | Path], folder: Path) -> None:
    """Calls the compiler; its complaints are the failure's message."""
    command = ["cc", *FLAGS, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
