"""How windows move over the positions of a value, in C."""

from __future__ import annotations

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
