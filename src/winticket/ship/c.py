"""A network as C99 for microcontrollers: one file and its header, without allocation, recursion or libraries."""

from __future__ import annotations

import math
import re
import textwrap
from dataclasses import dataclass

from winticket.ship.about import recorded_accuracy
from winticket.ship.c_arrays import array, literal, singles, string, string_bytes
from winticket.ship.c_calls import Calls
from winticket.ship.c_kernels import DECLARED, MATHS
from winticket.ship.c_windows import WINDOW
from winticket.ship.liveness import memory
from winticket.ship.network import Network, Preprocessing
from winticket.version import __version__

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")
_HEADERS = frozenset((
    "assert", "complex", "ctype", "errno", "fenv", "float", "inttypes", "iso646", "limits",
    "locale", "math", "setjmp", "signal", "stdarg", "stdbool", "stddef", "stdint", "stdio",
    "stdlib", "string", "tgmath", "time", "wchar", "wctype",
))  # fmt: skip


@dataclass(frozen=True)
class CSource:
    """A network as C.

    name     what its files, functions and constants begin with
    source   text of the .c file
    header   text of the .h file
    flash    bytes of constants: weights, their places, names of classes (with pointers of 32 bits); code is extra
    scratch  bytes of RAM for the values between two operations; input and output are the caller's
    maths    whether it calls functions of <math.h>, so that programs are linked with -lm
    """

    name: str
    source: str
    header: str
    flash: int
    scratch: int
    maths: bool

    @property
    def files(self) -> dict[str, str]:
        """The texts by file name."""
        return {f"{self.name}.c": self.source, f"{self.name}.h": self.header}


def to_c(network: Network, *, name: str = "ticket") -> CSource:
    """The network as one C99 file and a header, for machines without a system: no allocation, no recursion.

    `NAME_run(input, output)` computes one example with a static scratch buffer, `NAME_run_with(input, output, scratch)`
    with the caller's. `NAME_prepare(raw, input)` is there if the network has a preprocessing, `NAME_classes` if it has
    names of classes. Weights are stored densely, or as kept values with the gaps between them in bytes, or with their
    columns in 16 bits, whichever takes the fewest bytes. Weights that came in int8 stay so.

    The scratch buffer holds the values between two operations. Values that do not exist at the same time share memory.
    If `network.about["test_accuracy"]` is a number from 0 to 1, the header names it.

    Raises ValueError for a name that cannot begin C identifiers or is that of a standard header, for constants of more
    than 64 MiB, and for preprocessing that float32 cannot hold.

    >>> from winticket.ship import Network, Operation, Weight
    >>> weight = Weight.of("fc.weight", [[1.0, 2.0], [3.0, 4.0]])
    >>> c = to_c(Network((2,), (Operation("linear", ("input",), "1", tensors={"weight": weight}),)), name="net")
    >>> list(c.files), c.flash, c.scratch, "void net_run(const float *input, float *output);" in c.header
    (['net.c', 'net.h'], 16, 0, True)
    """
    if not _NAME.fullmatch(name) or name in _HEADERS:
        raise ValueError(
            f"{name!r} cannot name a C file and its functions: take a letter, then letters, digits and underscores, at "
            "most 40 characters, and not the name of a standard header"
        )
    plan = memory(network)
    calls = Calls(network, plan)
    extras, size = _extras(network)
    flash, scratch = calls.flash + size, 4 * plan.scratch
    source = _named(_source(calls, extras, scratch), name)
    header = _named(_header(network, flash, scratch), name)
    # Put in last, since a class may be called like a placeholder of the names.
    source = source.replace("@@", "".join(f"    {string(one)},\n" for one in network.classes))
    return CSource(name, source, header, flash, scratch, not MATHS.isdisjoint(calls.functions))


def c_name(text: str, suffix: str = "") -> str:
    """A name that `to_c` takes, made of any text: 40 characters at most, of which the suffix is the end.

    >>> c_name("ticket-4.76pct-r1", "_int8"), c_name("2 layers"), c_name("math")
    ('ticket_4_76pct_r1_int8', 'net_2_layers', 'net_math')
    """
    stem = re.sub(r"[^A-Za-z0-9]+", "_", text).strip("_")
    if not stem[:1].isalpha() or stem + suffix in _HEADERS:
        stem = f"net_{stem}"
    return stem[: 40 - len(suffix)].rstrip("_") + suffix


def _named(text: str, name: str) -> str:
    for placeholder, word in (("NAME_.", f"{name}."), ("NAME_", f"{name}_"), ("UPPER_", f"{name.upper()}_")):
        text = text.replace(placeholder, word)
    return text


def _extras(network: Network) -> tuple[str, int]:
    """(Text of the preprocessing and of the names of classes, bytes of their constants)."""
    text, flash = "", 0
    if network.preprocessing:
        text += _prepare(network.preprocessing, math.prod(network.input_shape))
        flash += 8 * len(network.preprocessing.mean)
    if network.classes:
        text += "const char *const NAME_classes[UPPER_OUTPUTS] = {\n@@};\n\n"
        flash += sum(4 + string_bytes(one) for one in network.classes)
    return text, flash


def _prepare(ready: Preprocessing, size: int) -> str:
    mean = array("float", "NAME_mean", singles(ready.mean))
    deviation = array("float", "NAME_deviation", singles(ready.deviation))
    return f"""\
{mean}{deviation}
void NAME_prepare(const float *raw, float *input)
{{
    int32_t channel, i;

    for (channel = 0; channel < {len(ready.mean)}; channel++) {{
        for (i = 0; i < {size // len(ready.mean)}; i++)
            *input++ = (*raw++ / {literal(ready.scale)} - NAME_mean[channel]) / NAME_deviation[channel];
    }}
}}

"""


def _source(calls: Calls, extras: str, scratch: int) -> str:
    maths = "" if DECLARED.isdisjoint(calls.functions) else "#include <math.h>\n"
    types = (
        f"typedef {calls.count_type} NAME_count; /* kept weights of a unit */\n\n" if calls.count_type else ""
    )
    types += f"{WINDOW}\n" if calls.windows else ""
    arrays = "".join([*calls.arrays, "\n"]) if calls.arrays else ""
    functions = "".join(f"{text}\n" for text in calls.functions.values())
    counter = "    int32_t i;\n\n" if any(line.startswith("for (i") for line in calls.lines) else ""
    lines = "".join(f"{_wrapped(line)}\n" for line in calls.lines)
    return f"""\
/* Written by winticket {__version__}. The header says what this is. */
{maths}#include <stdint.h>

#include "NAME_.h"

{types}{arrays}{functions}{extras}void NAME_run_with(const float *input, float *output, float *scratch)
{{
{counter}{"" if scratch else _UNUSED}{lines}}}

#ifndef UPPER_WITHOUT_RUN
void NAME_run(const float *input, float *output)
{{
{_BUFFER if scratch else ""}    NAME_run_with(input, output, {"scratch" if scratch else "0"});
}}
#endif
"""


def _wrapped(line: str) -> str:
    return textwrap.fill(line, 110, initial_indent="    ", subsequent_indent=" " * 12, break_long_words=False)


def _header(network: Network, flash: int, scratch: int) -> str:
    shape, out = network.input_shape, network.shapes[network.output]
    kept, size = network.kept()
    accuracy = recorded_accuracy(network)
    return f"""\
/* A neural network, written by winticket {__version__}.
 *
 * input     {math.prod(shape)} floats, {list(shape)} in row-major order
 * output    {math.prod(out)} floats, {list(out)}
 * weights   {kept} kept of {size}
 * flash     {flash} bytes of constants, and the code
 * RAM       {scratch} bytes of scratch; input and output are extra
{"" if accuracy is None else f" * accuracy  {accuracy:.4f} on test data"}
 */
#ifndef UPPER_H
#define UPPER_H

#define UPPER_INPUTS {math.prod(shape)}
#define UPPER_OUTPUTS {math.prod(out)}
#define UPPER_SCRATCH {scratch // 4} /* floats */

#ifdef __cplusplus
extern "C" {{
#endif
{_PREPARE if network.preprocessing else ""}{_CLASSES if network.classes else ""}{_RUN}
#ifdef __cplusplus
}}
#endif

#endif
""".replace("\n\n */", "\n */")


_UNUSED = "    (void)scratch;\n\n"
_BUFFER = "    static float scratch[UPPER_SCRATCH];\n\n"
_PREPARE = """
/* Raw data, as pixels, to the network's input. Both may be the same memory. */
void NAME_prepare(const float *raw, float *input);
"""
_CLASSES = """
/* The names of the outputs, in UTF-8. */
extern const char *const NAME_classes[UPPER_OUTPUTS];
"""
_RUN = """
/* Computes the output for one input with a static scratch buffer, so only one call may run at a time. Define
 * UPPER_WITHOUT_RUN for the compiler to leave out this function and its buffer. */
void NAME_run(const float *input, float *output);

/* The same with your scratch buffer of UPPER_SCRATCH floats. The three buffers must not overlap. */
void NAME_run_with(const float *input, float *output, float *scratch);
"""
