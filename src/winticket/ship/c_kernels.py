"""The C functions of which a network's C file consists. NAME_ is replaced by the name of the network.

All of them compute one example. A value is [channels, height, width] in row-major order; a signal has height 1.
"""

from __future__ import annotations

import re
import textwrap

WINDOW = """\
/* How a window moves over the positions of a value. Sizes are those of the input, of the output, and of the window. */
typedef struct {
    int32_t height, width;
    int32_t rows, columns;
    int32_t window_height, window_width;
    int32_t stride_down, stride_right;
    int32_t top, left; /* padding */
    int32_t dilation_down, dilation_right;
} NAME_window;
"""
WINDOW_BYTES = 12 * 4

TAP = """\
/* Adds weight times one channel, as the element (i, j) of the window sees it, to one channel of the output. */
static void NAME_tap(const float *restrict x, float *restrict y, const NAME_window *g,
        int32_t i, int32_t j, float weight)
{
    const int32_t stride = g->stride_right;
    const int32_t down = i * g->dilation_down - g->top;
    const int32_t right = j * g->dilation_right - g->left;
    const int32_t first = right < 0 ? (stride - 1 - right) / stride : 0;
    int32_t end = right < g->width ? (g->width - right + stride - 1) / stride : 0;
    int32_t row, column;

    if (end > g->columns)
        end = g->columns;
    for (row = 0; row < g->rows; row++) {
        const int32_t line = row * g->stride_down + down;
        if (line >= 0 && line < g->height) {
            const int32_t start = line * g->width + right;
            for (column = first; column < end; column++)
                y[column] += weight * x[start + column * stride];
        }
        y += g->columns;
    }
}
"""

_WALKS = {
    "dense": """\
for (column = 0; column < inputs; column++)
    USE;
""",
    "gaps": """\
column = 0;
for (left = (int32_t)*counts++; left > 0;) {
    const int32_t gap = *gaps++;
    column += gap;
    if (gap < 255) { /* 255 skips without a value */
        USE;
        column++;
        left--;
    }
}
""",
    "columns": """\
for (left = (int32_t)*counts++; left > 0; left--) {
    column = *columns++;
    USE;
}
""",
}
_PLACES = {
    "dense": [],
    "gaps": ["const NAME_count *counts", "const uint8_t *gaps"],
    "columns": ["const NAME_count *counts", "const uint16_t *columns"],
}

_LINEAR = """\
/* y = W x + b, ABOUT. */
static void NAME_linear_CODING_TYPE(const float *restrict x, float *restrict y, int32_t units,
        PARAMETERS,
        const float *bias)
{
    int32_t unit, column;
    LEFT

    for (unit = 0; unit < units; unit++) {
        float sum = 0.0f;
        WALK
        y[unit] = SUM + (bias ? bias[unit] : 0.0f);
    }
}
"""

_CONV = """\
/* A convolution, ABOUT.
 * inputs: weights of a unit, kept or not; units: those of each group. */
static void NAME_conv_CODING_TYPE(const float *restrict x, float *restrict y, const NAME_window *g,
        int32_t groups, int32_t units, int32_t inputs,
        PARAMETERS,
        const float *bias)
{
    const int32_t area = g->window_height * g->window_width;
    const int32_t plane = g->height * g->width, size = g->rows * g->columns;
    int32_t group, unit, column, i;
    LEFT

    for (group = 0; group < groups; group++) {
        for (unit = 0; unit < units; unit++) {
            START
            WALK
            FINISH
            y += size;
        }
        x += inputs / area * plane;
    }
}
"""

_CONV_START = """\
const float start = bias ? *bias++ : 0.0f;
for (i = 0; i < size; i++)
    y[i] = start;
"""
_CONV_ZERO = """\
for (i = 0; i < size; i++)
    y[i] = 0.0f;
"""
_CONV_FINISH = """\
for (i = 0; i < size; i++)
    y[i] = *scales * y[i] + (bias ? *bias : 0.0f);
scales++;
if (bias)
    bias++;
"""
_TAP_USE = """\
NAME_tap(x + column / area * plane, y, g, column % area / g->window_width, column % g->window_width,
        (float)*values++)"""
_ABOUT = {
    "dense": "all weights stored",
    "gaps": "with the kept weights and the gaps before them",
    "columns": "with the kept weights and their columns",
}


def layer(kind: str, coding: str, *, whole: bool) -> str:
    """The function NAME_{kind}_{coding}_{int8 or float} for kind "linear" or "conv"; whole: its weights are int8."""
    parameters = ["int32_t inputs"] if (kind, coding) == ("linear", "dense") else []
    parameters += [*_PLACES[coding], f"const {'int8_t' if whole else 'float'} *values"]
    parameters += ["const float *scales"] if whole else []
    use = "sum += (float)*values++ * x[column]" if kind == "linear" else _TAP_USE
    parts = {
        "WALK": _put(_WALKS[coding], "USE;", f"{use};\n"),
        "LEFT": "" if coding == "dense" else "int32_t left;\n",
        "START": _CONV_ZERO if whole else _CONV_START,
        "FINISH": _CONV_FINISH if whole else "",
    }
    words = {
        "PARAMETERS": ", ".join(parameters),
        "ABOUT": _ABOUT[coding] + (", multiples of a scale for each unit" if whole else ""),
        "CODING": coding,
        "TYPE": "int8" if whole else "float",
        "SUM": "scales[unit] * sum" if whole else "sum",
    }
    text = _LINEAR if kind == "linear" else _CONV
    for word, replacement in words.items():
        text = text.replace(word, replacement)
    for word, lines in parts.items():
        text = _put(text, word, lines)
    return text


def _put(text: str, word: str, lines: str) -> str:
    """The text with these lines, indented alike, for each line that is only the word."""
    return re.sub(rf"^( *){re.escape(word)}\n", lambda m: textwrap.indent(lines, m[1]), text, flags=re.M)


def elementwise(name: str, expression: str, *, options: int = 0, about: str = "") -> str:
    """The function NAME_{name} that puts the expression of v, and of options a and b, in the place of every v."""
    parameters = "".join(f", float {letter}" for letter in "ab"[:options])
    return f"""\
{about}static void NAME_{name}(const float *x, float *y, int32_t size{parameters})
{{
    int32_t i;

    for (i = 0; i < size; i++) {{
        const float v = x[i];
        y[i] = {expression};
    }}
}}
"""


_SOFTMAX = """\
/* Along an axis of `count` elements, each `inner` after the one before it. */
static void NAME_KIND(const float *x, float *y, int32_t outer, int32_t count, int32_t inner)
{
    int32_t i, j, k;

    for (i = 0; i < outer; i++) {
        for (j = 0; j < inner; j++) {
            float most = x[j], sum = 0.0f;
            for (k = 1; k < count; k++)
                if (x[j + k * inner] > most)
                    most = x[j + k * inner];
            for (k = 0; k < count; k++)
                sum += expf(x[j + k * inner] - most);
            for (k = 0; k < count; k++)
                y[j + k * inner] = RESULT;
        }
        x += count * inner;
        y += count * inner;
    }
}
"""

_POOL = """\
static void NAME_KIND(const float *restrict x, float *restrict y, int32_t channels, const NAME_window *gOPTION)
{
    int32_t channel, row, column, i, j;

    for (channel = 0; channel < channels; channel++) {
        for (row = 0; row < g->rows; row++) {
            for (column = 0; column < g->columns; column++) {
                float result = FIRST;
                BEFORE
                for (i = 0; i < g->window_height; i++) {
                    const int32_t down = row * g->stride_down + i * g->dilation_down - g->top;
                    if (down < 0 || down >= g->height)
                        continue;
                    for (j = 0; j < g->window_width; j++) {
                        const int32_t right = column * g->stride_right + j * g->dilation_right - g->left;
                        if (right < 0 || right >= g->width)
                            continue;
                        EACH
                    }
                }
                *y++ = RESULT;
            }
        }
        x += g->height * g->width;
    }
}
"""
_MAX_POOL = {
    "BEFORE": "",
    "EACH": "if (x[down * g->width + right] > result)\n    result = x[down * g->width + right];\n",
}
_AVG_POOL = {"BEFORE": "int32_t count = 0;\n", "EACH": "result += x[down * g->width + right];\ncount++;\n"}


def _pool(kind: str, lines: dict[str, str], *, option: str, first: str, result: str) -> str:
    text = _POOL
    for word, replacement in lines.items():
        text = _put(text, word, replacement)
    for word, replacement in {"KIND": kind, "OPTION": option, "FIRST": first, "RESULT": result}.items():
        text = text.replace(word, replacement)
    return text


def _softmax(kind: str, result: str) -> str:
    return _SOFTMAX.replace("KIND", kind).replace("RESULT", result)


FUNCTIONS: dict[str, str] = {
    "relu": elementwise("relu", "v < 0.0f ? 0.0f : v"),
    "leaky_relu": elementwise("leaky_relu", "v > 0.0f ? v : v * a", options=1),
    "hardtanh": elementwise("hardtanh", "v < a ? a : v > b ? b : v", options=2),
    "gelu": elementwise("gelu", "0.5f * v * (1.0f + erff(v * 0.707106769f))"),
    "gelu_tanh": elementwise(
        "gelu_tanh", "0.5f * v * (1.0f + tanhf(0.797884583f * (v + 0.0447149985f * (v * v * v))))"
    ),
    "silu": elementwise("silu", "v * (1.0f / (1.0f + expf(-v)))"),
    "sigmoid": elementwise("sigmoid", "1.0f / (1.0f + expf(-v))"),
    "tanh": elementwise("tanh", "tanhf(v)"),
    "softmax": _softmax("softmax", "expf(x[j + k * inner] - most) / sum"),
    "log_softmax": _softmax("log_softmax", "x[j + k * inner] - most - logf(sum)"),
    "max_pool": _pool("max_pool", _MAX_POOL, option="", first="-INFINITY", result="result"),
    "avg_pool": _pool(
        "avg_pool",
        _AVG_POOL,
        option=",\n        int32_t padded /* whether padding counts as zeros */",
        first="0.0f",
        result="result / (float)(padded ? g->window_height * g->window_width : count)",
    ),
    "scale_shift": """\
static void NAME_scale_shift(const float *x, float *y, int32_t channels, int32_t size,
        const float *scale, const float *shift)
{
    int32_t channel, i;

    for (channel = 0; channel < channels; channel++) {
        for (i = 0; i < size; i++)
            *y++ = *x++ * scale[channel] + shift[channel];
    }
}
""",
    "adaptive_avg_pool": """\
/* Window i of n over m positions goes from floor(i m / n) to ceil((i + 1) m / n). */
static void NAME_adaptive_avg_pool(const float *restrict x, float *restrict y, int32_t channels,
        int32_t height, int32_t width, int32_t rows, int32_t columns)
{
    int32_t channel, row, column, i, j;

    for (channel = 0; channel < channels; channel++) {
        for (row = 0; row < rows; row++) {
            const int32_t top = (int32_t)((int64_t)row * height / rows);
            const int32_t bottom = (int32_t)((((int64_t)row + 1) * height + rows - 1) / rows);
            for (column = 0; column < columns; column++) {
                const int32_t left = (int32_t)((int64_t)column * width / columns);
                const int32_t right = (int32_t)((((int64_t)column + 1) * width + columns - 1) / columns);
                float sum = 0.0f;
                for (i = top; i < bottom; i++)
                    for (j = left; j < right; j++)
                        sum += x[i * width + j];
                *y++ = sum / (float)((bottom - top) * (right - left));
            }
        }
        x += height * width;
    }
}
""",
    "add": """\
static void NAME_add(const float *a, const float *b, float *y, int32_t size)
{
    int32_t i;

    for (i = 0; i < size; i++)
        y[i] = a[i] + b[i];
}
""",
    "copy": """\
/* Copies `count` runs of `size` elements each to runs that begin `stride` elements apart. */
static void NAME_copy(const float *restrict x, float *restrict y, int32_t count, int32_t size, int32_t stride)
{
    int32_t i, j;

    for (i = 0; i < count; i++) {
        for (j = 0; j < size; j++)
            y[j] = *x++;
        y += stride;
    }
}
""",
}
"""By name, without the prefix; those of layers come from `layer`, those of means are written for each."""
MATHS = frozenset(("gelu", "gelu_tanh", "silu", "sigmoid", "tanh", "softmax", "log_softmax"))
"""Functions that call those of <math.h>, so that the program is linked with -lm."""
DECLARED = MATHS | {"max_pool"}
"""Functions that need <math.h>: the above, and the one that names INFINITY alone."""
