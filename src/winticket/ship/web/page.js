// The page: what is drawn or chosen goes through every network, and its answers are shown side by side.
(async () => {
  "use strict";
  const facts = JSON.parse(document.getElementById("facts").textContent), { shape, draw, examples, classes } = facts;
  const size = shape.reduce((a, b) => a * b, 1);

  const make = (tag, attributes, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };
  const button = (text, act, attributes) => {
    const element = make("button", { type: "button", ...attributes }, text);
    element.addEventListener("click", act);
    return element;
  };

  const networks = [];
  for (const one of facts.networks)
    networks.push({ ...one, ...(await engine.open(document.getElementById(one.id).textContent, one.shapes)) });

  // ---- Answers

  const panels = document.getElementById("panels"), spoken = document.getElementById("spoken");
  const SHOWN = 12; // classes that are shown at once: of more, the likeliest
  const percent = (share) => `${(100 * share).toFixed(share < 0.0005 || share >= 0.9995 || (share >= 0.0995 && share < 0.9945) ? 0 : 1)} %`;
  const fact = (name, value) => make("div", {}, make("dt", {}, name), make("dd", {}, value));

  for (const network of networks) {
    network.answer = make("p", { class: "answer" });
    network.bars = make("ul", { class: "bars", "aria-label": `Probabilities by ${network.name}` });
    network.bars.style.setProperty("--label", `${Math.min(9, Math.max(...classes.map((name) => name.length)))}ch`);
    network.lines = classes.slice(0, SHOWN).map(() => {
      const line = { label: make("span", { class: "label" }), bar: make("span"), share: make("span", { class: "percent" }) };
      line.element = make("li", {}, line.label, make("span", { class: "track", "aria-hidden": "true" }, line.bar), line.share);
      network.bars.append(line.element);
      return line;
    });
    network.time = make("dd", {}, "not measured yet");
    panels.append(
      make("article", { class: "panel", "aria-label": network.name }, make("h3", {}, network.name), network.answer, network.bars,
        make("dl", {}, ...network.facts.map(([name, value]) => fact(name, value)),
          make("div", {}, make("dt", {}, "time per prediction"), network.time))),
    );
  }

  const show = (network, shares) => {
    const order = [...classes.keys()];
    if (classes.length > SHOWN) order.sort((a, b) => shares[b] - shares[a]);
    const best = shares.indexOf(Math.max(...shares));
    network.answer.replaceChildren(classes[best], " ", make("small", {}, percent(shares[best])));
    network.lines.forEach((line, number) => {
      const one = order[number];
      line.label.textContent = line.label.title = classes[one];
      line.bar.style.width = `${100 * shares[one]}%`;
      line.share.textContent = percent(shares[one]);
      line.element.className = one === best ? "best" : "";
    });
    return `${network.name}: ${classes[best]}, ${percent(shares[best])}`;
  };

  let raw = null, label = null, saying = 0;
  const predict = () => {
    if (!raw) {
      for (const network of networks) {
        show(network, classes.map(() => 0));
        network.answer.textContent = "–";
      }
      spoken.textContent = "";
      return;
    }
    const said = networks.map((network) => {
      network.fill(raw);
      network.run();
      return show(network, network.probabilities());
    });
    clearTimeout(saying); // screen readers hear what stays
    saying = setTimeout(() => (spoken.textContent = said.join("; ") + (label === null ? "" : `; right: ${label}`)), 400);
  };

  // ---- Input: drawn, or chosen among examples, or set by sliders

  const more = document.getElementById("more");
  if (!examples && !facts.sliders) document.querySelector(".more").remove();
  const input = document.getElementById("input"), truth = make("p", { class: "note" });
  const changed = (values, name = null) => {
    raw = values;
    label = name;
    truth.textContent = name === null ? "" : `Test example; its class: ${name}.`;
    preview();
    predict();
  };

  // One pixel of the data as a grey or a colour; `low` and `high` are the ends of the data.
  const paint = (canvas, values) => {
    const [channels, rows, columns] = shape, plane = rows * columns, picture = new ImageData(columns, rows);
    for (let i = 0; i < plane; i++) {
      for (let c = 0; c < 3; c++) {
        const value = values[(channels === 3 ? c : 0) * plane + i];
        picture.data[4 * i + c] = (255 * (value - facts.low)) / (facts.high - facts.low);
      }
      picture.data[4 * i + 3] = 255;
    }
    Object.assign(canvas, { width: columns, height: rows }).getContext("2d").putImageData(picture, 0, 0);
  };

  // Signals: a line for each channel, on one scale. Other values: a bar each.
  const plot = (canvas, values) => {
    const [channels, length] = shape.length > 1 ? [shape[0], size / shape[0]] : [1, size];
    const { clientWidth: wide, clientHeight: high } = canvas, dense = window.devicePixelRatio || 1;
    Object.assign(canvas, { width: Math.max(1, wide * dense), height: Math.max(1, high * dense) });
    const pen = canvas.getContext("2d"), colours = getComputedStyle(document.documentElement);
    const span = facts.high - facts.low || 1, y = (value) => high - 4 - ((high - 8) * (value - facts.low)) / span;
    pen.scale(dense, dense);
    for (let c = 0; c < channels; c++) {
      pen.strokeStyle = pen.fillStyle = colours.getPropertyValue(c % 2 ? "--bar-0" : "--bar");
      pen.globalAlpha = c > 1 ? 0.55 : 1;
      pen.lineWidth = 2;
      pen.beginPath();
      for (let i = 0; i < length; i++) {
        const value = values[c * length + i];
        if (shape.length > 1) pen.lineTo(((i + 0.5) * wide) / length, y(value));
        else pen.fillRect((i * wide) / length, Math.min(y(value), y(0)), (0.8 * wide) / length, Math.abs(y(value) - y(0)) || 1);
      }
      pen.stroke();
    }
  };

  const isImage = shape.length === 3, seen = make("canvas", { class: "seen", role: "img", "aria-label": "What the networks get" });
  const sliders = [];
  const preview = () => {
    (isImage ? paint : plot)(seen, raw || new Float32Array(size).fill(draw ? draw.paper : 0));
    sliders.forEach((slider, i) => raw && (slider.value = raw[i]));
  };

  const chosen = examples && (examples.type === "u8" ? engine.bytesOf(examples.data) : new Float32Array(engine.bytesOf(examples.data).buffer));
  const thumbs = [];
  let clearDrawing = () => {};
  const choose = (number) => {
    clearDrawing();
    thumbs.forEach((thumb, i) => thumb.setAttribute("aria-pressed", i === number));
    if (number < 0) changed(null);
    else changed(Float32Array.from(chosen.subarray(number * size, (number + 1) * size)), examples.labels[number]);
  };

  if (draw) {
    const canvas = make("canvas", { class: "draw", role: "img", "aria-label": "Drawing area, for mouse, pen or finger; without them, choose an example" });
    const [rows, columns] = shape.slice(1), strokes = [];
    const redraw = () => {
      Object.assign(canvas, { width: 560, height: Math.round((560 * rows) / columns) });
      const pen = canvas.getContext("2d");
      Object.assign(pen, { lineWidth: 34, lineCap: "round", lineJoin: "round", strokeStyle: "#1d2129" });
      for (const stroke of strokes) {
        pen.beginPath();
        for (const [x, y] of [...stroke, stroke.at(-1)]) pen.lineTo(x * canvas.width, y * canvas.height);
        pen.stroke();
      }
      hint.hidden = strokes.length > 0;
    };
    const hint = make("p", { class: "note" }, facts.hint);
    const update = () => {
      redraw();
      const ink = drawing.pixels(strokes, [rows, columns], draw.fit);
      changed(strokes.length ? ink.map((share) => draw.paper + share * (draw.ink - draw.paper)) : null);
    };
    let waiting = 0, later = 0;
    const soon = () => {
      const slow = networks.reduce((sum, { median = 0 }) => sum + median, 0) > 50; // then once the pen rests
      clearTimeout(later);
      if (slow) later = setTimeout(update, 200);
      waiting ||= requestAnimationFrame(() => ((waiting = 0), slow ? redraw() : update()));
    };
    const point = (event) => {
      const box = canvas.getBoundingClientRect();
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    };
    let active = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (active !== null || event.button) return;
      active = event.pointerId;
      canvas.setPointerCapture(active);
      thumbs.forEach((thumb) => thumb.setAttribute("aria-pressed", false));
      strokes.push([point(event)]);
      soon();
      event.preventDefault();
    });
    canvas.addEventListener("pointermove", (event) => {
      if (event.pointerId !== active) return;
      for (const one of event.getCoalescedEvents?.().length ? event.getCoalescedEvents() : [event]) strokes.at(-1).push(point(one));
      soon();
    });
    for (const end of ["pointerup", "pointercancel"])
      canvas.addEventListener(end, (event) => event.pointerId === active && (active = null));
    clearDrawing = () => {
      clearTimeout(later);
      strokes.length = 0;
      redraw();
    };
    const undo = () => (strokes.pop(), update());
    const buttons = [button("Clear", () => choose(-1), { id: "clear" }), button("Undo stroke", undo, { id: "undo" })];
    input.append(canvas, hint, make("div", { class: "row" }, ...buttons));
    redraw();
  }

  seen.style.width = isImage ? `${Math.max(56, Math.min(160, 4 * shape[2]))}px` : "100%";
  if (!isImage) seen.style.height = "140px";
  input.append(make("div", { class: "row" }, seen, make("span", { class: "note" }, facts.seen)), truth);

  if (examples) {
    const list = make("div", { class: "examples", role: "group", "aria-label": "Test examples" });
    examples.labels.forEach((name, number) => {
      const picture = isImage ? make("canvas", { "aria-hidden": "true" }) : `${number + 1}`;
      if (isImage) paint(picture, chosen.subarray(number * size, (number + 1) * size));
      thumbs.push(button(picture, () => choose(number), { "aria-label": `Test example ${number + 1}, class ${name}`, "aria-pressed": "false" }));
    });
    list.append(...thumbs);
    more.append(list);
  }

  if (facts.sliders) {
    const all = make("div", { class: "sliders" });
    for (let i = 0; i < size; i++) {
      const slider = make("input", { type: "range", min: facts.low, max: facts.high, step: "any", value: 0 });
      slider.addEventListener("input", () => {
        const values = Float32Array.from(raw || new Float32Array(size));
        values[i] = slider.valueAsNumber;
        thumbs.forEach((thumb) => thumb.setAttribute("aria-pressed", false));
        changed(values);
      });
      sliders.push(slider);
      all.append(make("label", {}, `value ${i + 1}`, slider));
    }
    if (!examples) more.append(all);
    else more.append(make("details", {}, make("summary", {}, "Set the values"), all));
  }

  // ---- Times: the networks in turns, so many predictions at once that the clock can tell; the median counts.

  const timing = document.getElementById("timing"), again = document.getElementById("again");
  const ROUNDS = 15, FEWEST = 3, BATCH = 20, MOST = 4000; // milliseconds
  const clocked = (network, count) => {
    const start = performance.now();
    for (let i = 0; i < count; i++) network.run();
    return performance.now() - start;
  };
  const text = (ms) => {
    const [value, unit] = ms >= 1000 ? [ms / 1000, "s"] : ms >= 1 ? [ms, "ms"] : [1000 * ms, "µs"];
    return `${Number(value.toPrecision(2))} ${unit}`;
  };
  const pause = () => new Promise((done) => setTimeout(done));
  const times = (a) => (a < 10 ? a.toPrecision(2) : a.toFixed(0));

  const measure = async () => {
    again.disabled = true;
    timing.textContent = "Measuring …";
    await pause();
    for (const network of networks) {
      if (!raw) network.fill(chosen ? chosen.subarray(0, size) : new Float32Array(size));
      const start = performance.now();
      let runs = 0; // the first half warms up
      for (; performance.now() - start < 4 * BATCH; runs++) network.run();
      network.count = Math.max(1, Math.round(runs / 3));
      network.samples = [];
    }
    let rounds = 0; // as many, unless that takes too long
    for (const start = performance.now(); rounds < ROUNDS && (rounds < FEWEST || performance.now() - start < MOST); rounds++)
      for (const network of networks) {
        network.samples.push(clocked(network, network.count) / network.count);
        await pause();
      }
    for (const network of networks) {
      network.median = network.samples.sort((a, b) => a - b)[rounds >> 1];
      network.time.textContent = text(network.median);
    }
    timing.textContent = `Measured in this browser: medians of ${rounds} rounds` + (networks.length > 1 ? ", in turns. " : ". ") + compared();
    again.disabled = false;
  };
  const compared = () => {
    if (networks.length < 2) return "";
    const [dense, ticket] = networks, ratio = dense.median / ticket.median;
    const how = ratio >= 1.1 ? `${times(ratio)} times faster than` : ratio > 1 / 1.1 ? "about as fast as" : `${times(1 / ratio)} times slower than`;
    return `The ${ticket.name.toLowerCase()} is ${how} the ${dense.name.toLowerCase()}.`;
  };
  again.addEventListener("click", measure);

  if (examples && !draw) choose(0);
  else changed(facts.sliders && !draw ? new Float32Array(size) : null);
  await measure();
  predict(); // measuring has filled in another input

  // For tests and the curious: outputs of a network for raw data.
  window.winticket = {
    outputs(id, values) {
      const network = networks.find((one) => one.id === id);
      network.fill(values);
      return Array.from(network.run());
    },
    pixels: drawing.pixels,
  };
  document.body.dataset.ready = "";
  window.addEventListener("resize", preview);
})();
