"""The C functions of pools."""

from __future__ import annotations

from winticket.ship.c_layers import put

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
MAX_POOL = {
    "BEFORE": "",
    "EACH": "if (x[down * g->width + right] > result)\n    result = x[down * g->width + right];\n",
}
AVG_POOL = {"BEFORE": "int32_t count = 0;\n", "EACH": "result += x[down * g->width + right];\ncount++;\n"}
ADAPTIVE_AVG_POOL = """\
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
"""


def pool(kind: str, lines: dict[str, str], *, option: str, first: str, result: str) -> str:
    """The function NAME_{kind}, with these lines before and at each element of a window."""
    text = _POOL
    for word, replacement in lines.items():
        text = put(text, word, replacement)
    for word, replacement in {"KIND": kind, "OPTION": option, "FIRST": first, "RESULT": result}.items():
        text = text.replace(word, replacement)
    return text
