"""The C functions of a network's C file that compute no layer. NAME_ is replaced by the name of the network.

All of them compute one example. A value is [channels, height, width] in row-major order; a signal has height 1.
"""

from __future__ import annotations

from winticket.ship.c_pools import ADAPTIVE_AVG_POOL, AVG_POOL, MAX_POOL, pool


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
    "max_pool": pool("max_pool", MAX_POOL, option="", first="-INFINITY", result="result"),
    "avg_pool": pool(
        "avg_pool",
        AVG_POOL,
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
    "adaptive_avg_pool": ADAPTIVE_AVG_POOL,
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
"""By name, without the prefix; those of layers come from `c_layers.layer`, those of means are written for each."""
MATHS = frozenset(("gelu", "gelu_tanh", "silu", "sigmoid", "tanh", "softmax", "log_softmax"))
"""Functions that call those of <math.h>, so that the program is linked with -lm."""
DECLARED = MATHS | {"max_pool"}
"""Functions that need <math.h>: the above, and the one that names INFINITY alone."""
