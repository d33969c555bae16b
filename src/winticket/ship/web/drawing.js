// Makes the pixels of a drawing as the data were made. A drawing is a list of strokes, a stroke a list of points
// [x, y] from 0 to 1; the pixels are numbers from 0 (paper) to 1 (ink).
const drawing = (() => {
  "use strict";
  const FINE = 4; // a pixel is the mean of 4 x 4 dots

  const ends = (strokes, axis) => {
    const all = strokes.flat().map((point) => point[axis]);
    return [Math.min(...all), Math.max(...all)];
  };

  const moved = (strokes, x, y) => strokes.map((stroke) => stroke.map((point) => [x(point[0]), y(point[1])]));

  // The strokes in a box of `wide` x `high` dots in the middle of `columns` x `rows`; stretched in width at most by
  // what they would be stretched in height, so that a 1 stays thin.
  const boxed = (strokes, [wide, high], [columns, rows], same) => {
    const [left, right] = ends(strokes, 0), [top, bottom] = ends(strokes, 1);
    const dot = 0.05; // what is smaller, as a tap, is not blown up
    let sy = high / Math.max(bottom - top, (right - left) / 4, dot);
    const sx = Math.min(sy, wide / Math.max(right - left, dot));
    if (same) sy = sx;
    return moved(
      strokes,
      (x) => columns / 2 + sx * (x - (left + right) / 2),
      (y) => rows / 2 + sy * (y - (top + bottom) / 2),
    );
  };

  // The distance of every dot's middle from the nearest stroke.
  const distances = (strokes, columns, rows) => {
    const least = new Float32Array(columns * rows).fill(Infinity);
    for (const stroke of strokes)
      stroke.forEach(([ax, ay], number) => {
        const [bx, by] = stroke[Math.max(0, number - 1)], dx = bx - ax, dy = by - ay, length = dx * dx + dy * dy;
        for (let row = 0, i = 0; row < rows; row++)
          for (let column = 0; column < columns; column++, i++) {
            const x = column + 0.5 - ax, y = row + 0.5 - ay;
            const t = length ? Math.min(1, Math.max(0, (x * dx + y * dy) / length)) : 0;
            least[i] = Math.min(least[i], (x - t * dx) ** 2 + (y - t * dy) ** 2);
          }
      });
    return least.map(Math.sqrt);
  };

  const means = (dots, columns, rows) => {
    const pixels = new Float32Array((columns * rows) / FINE ** 2);
    dots.forEach((dot, i) => {
      const row = Math.floor(i / columns / FINE), column = Math.floor((i % columns) / FINE);
      pixels[(row * columns) / FINE + column] += dot / FINE ** 2;
    });
    return pixels;
  };

  const FITS = {
    // As NIST's forms became the digits of 8 x 8: stretched to the whole height, in about 3/4 of the width, and the pen
    // such that 30 % of the dots are ink.
    whole(strokes, columns, rows) {
      const placed = boxed(strokes, [0.75 * columns - 5, rows - 5], [columns, rows], false);
      const far = distances(placed, columns, rows), pen = far.slice().sort()[Math.floor(0.3 * far.length)];
      return far.map((d) => d <= Math.min(4.5, Math.max(1.5, pen)));
    },
    // As MNIST was made: in a box of 20 x 20 pixels of 28, in the right proportions, moved so that the centre of mass is
    // in the middle.
    centred(strokes, columns, rows) {
      const pen = columns / 22, box = (20 / 28) * columns - 2 * pen;
      let placed = boxed(strokes, [box, (20 / 28) * rows - 2 * pen], [columns, rows], true);
      const far = distances(placed, columns, rows);
      let mass = 0, x = 0, y = 0;
      far.forEach((d, i) => d <= pen && (mass++, (x += (i % columns) + 0.5), (y += Math.floor(i / columns) + 0.5)));
      placed = moved(placed, (p) => p + Math.round(columns / 2 - x / mass), (p) => p + Math.round(rows / 2 - y / mass));
      return distances(placed, columns, rows).map((d) => d <= pen);
    },
    // Any other picture: as it is drawn.
    plain(strokes, columns, rows) {
      const placed = moved(strokes, (x) => x * columns, (y) => y * rows);
      return distances(placed, columns, rows).map((d) => d <= Math.max(columns, rows) / 24);
    },
  };

  // The pixels, in rows; `fit` is one of FITS.
  const pixels = (strokes, [rows, columns], fit) => {
    const wide = FINE * columns, high = FINE * rows;
    if (!strokes.length) return new Float32Array(rows * columns);
    return means(FITS[fit](strokes, wide, high), wide, high);
  };

  return { pixels };
})();
