// Shows the masks' level that the slider is at, and the number of the square that is pointed at.
(() => {
  "use strict";
  const byId = (id) => document.getElementById(id);
  const { columns, weights, levels } = JSON.parse(byId("mask-data").textContent);
  const slider = byId("mask-level");
  const words = byId("mask-words");
  const most = byId("mask-most");
  const pixel = byId("mask-pixel");
  const picture = byId("mask-picture");
  const squares = [...picture.querySelectorAll("rect")];
  let at = 0; // the square that the words below the slider are about

  const figure = (count) => (count >= 100 ? Math.round(count).toLocaleString("en") : String(Math.round(10 * count) / 10));

  const describe = () => {
    const { kept } = levels[slider.value];
    const row = Math.floor(at / columns) + 1;
    pixel.textContent = `Row ${row}, column ${(at % columns) + 1}: ${figure(kept[at])} of ${weights.toLocaleString("en")} weights.`;
  };

  const show = () => {
    const level = levels[slider.value];
    const highest = Math.max(...level.kept, 1e-9);
    squares.forEach((square, i) => square.setAttribute("fill-opacity", (level.kept[i] / highest).toFixed(3)));
    words.textContent = level.words;
    most.textContent = figure(highest);
    slider.setAttribute("aria-valuetext", level.words.split(" (")[0]);
    describe();
  };

  const point = (to) => {
    squares[at].removeAttribute("class");
    at = to;
    squares[at].setAttribute("class", "at");
    describe();
  };

  picture.addEventListener("pointermove", (event) => {
    const i = squares.indexOf(event.target);
    if (i >= 0) point(i);
  });
  // The picture is one stop of the tab key; its arrow keys go from square to square.
  picture.setAttribute("tabindex", "0");
  picture.addEventListener("focus", () => point(at));
  picture.addEventListener("keydown", (event) => {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
    const to = at + (steps[event.key] ?? 0);
    if (to === at || to < 0 || to >= squares.length) return;
    event.preventDefault();
    point(to);
  });
  slider.addEventListener("input", show);
  slider.closest("p").hidden = false;
  pixel.setAttribute("aria-live", "polite");
  show();
})();
