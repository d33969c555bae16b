"""The text of the C functions of layers, with words in capitals where they differ."""

from __future__ import annotations

WALKS = {
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
PLACES = {
    "dense": [],
    "gaps": ["const NAME_count *counts", "const uint8_t *gaps"],
    "columns": ["const NAME_count *counts", "const uint16_t *columns"],
}

LINEAR = """\
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

CONV = """\
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

CONV_START = """\
const float start = bias ? *bias++ : 0.0f;
for (i = 0; i < size; i++)
    y[i] = start;
"""
CONV_ZERO = """\
for (i = 0; i < size; i++)
    y[i] = 0.0f;
"""
CONV_FINISH = """\
for (i = 0; i < size; i++)
    y[i] = *scales * y[i] + (bias ? *bias : 0.0f);
scales++;
if (bias)
    bias++;
"""
TAP_USE = """\
NAME_tap(x + column / area * plane, y, g, column % area / g->window_width, column % g->window_width,
        (float)*values++)"""
ABOUT = {
    "dense": "all weights stored",
    "gaps": "with the kept weights and the gaps before them",
    "columns": "with the kept weights and their columns",
}
