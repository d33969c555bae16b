// Reads compact files of winticket and computes their networks, an example at a time.
// Every value between two operations is a Float32Array; sums are taken in double precision where that is free.
const engine = (() => {
  "use strict";

  const bytesOf = (base64) => {
    const text = atob(base64), bytes = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
    return bytes;
  };

  const inflated = (bytes) =>
    new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).text();

  const product = (shape) => shape.reduce((a, b) => a * b, 1);

  // ---- The file: a safetensors header, then masks, values and the document that describes the operations.

  const half = (h) => {
    const sign = h & 0x8000 ? -1 : 1, power = (h >> 10) & 31, rest = h & 1023;
    return power ? sign * 2 ** (power - 15) * (1 + rest / 1024) : sign * 2 ** -24 * rest;
  };

  const READ = {
    F32: (buffer) => new Float32Array(buffer),
    F16: (buffer) => Float32Array.from(new Uint16Array(buffer), half),
    BF16: (buffer) => new Float32Array(Uint32Array.from(new Uint16Array(buffer), (b) => b << 16).buffer),
    I8: (buffer) => new Int8Array(buffer),
    U8: (buffer) => new Uint8Array(buffer),
  };

  const bit = (bytes, at) => (bytes[at >> 3] >> (7 - (at & 7))) & 1;

  // The positions of the kept elements: flags, or Golomb-Rice codes of the gaps between them.
  const positionsOf = (entry, size, take) => {
    const places = new Uint32Array(entry.kept);
    if (entry.rice === undefined) {
      const flags = take("masks", Math.ceil(size / 8));
      for (let at = 0, n = 0; at < size; at++) if (bit(flags, at)) places[n++] = at;
      return places;
    }
    const code = take("masks", entry.bytes), low = entry.rice;
    let unary = 0, rest = 8 * (code.length - Math.ceil((entry.kept * low) / 8)), at = -1;
    for (let n = 0; n < places.length; n++) {
      let quotient = 0, remainder = 0;
      while (!bit(code, unary++)) quotient++;
      for (let i = 0; i < low; i++) remainder = 2 * remainder + bit(code, rest++);
      places[n] = at += quotient * 2 ** low + remainder + 1;
    }
    return places;
  };

  // {shape, values, places}; places is null if no element is pruned.
  const tensorOf = (entry, take, whole) => {
    const size = product(entry.shape), axes = entry.shape.length;
    const places = entry.kept === undefined ? null : positionsOf(entry, size, take);
    const count = places ? places.length : size;
    let values = take(whole && axes < 2 ? "floats" : "values", count);
    if (whole && axes > 1) {
      const scales = take("floats", entry.shape[0]), each = size / entry.shape[0], numbers = values;
      values = new Float32Array(count);
      for (let i = 0; i < count; i++) values[i] = numbers[i] * scales[Math.floor((places ? places[i] : i) / each)];
    }
    return { shape: entry.shape, values, places };
  };

  const readFile = async (bytes) => {
    const start = 8 + new DataView(bytes.buffer).getUint32(0, true), parts = {}, used = {}, known = Object.create(null);
    const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, start)));
    for (const [name, { dtype, data_offsets: [from, to] }] of Object.entries(header).filter(([n]) => n[0] !== "_"))
      (parts[name] = READ[dtype](bytes.slice(start + from, start + to).buffer)), (used[name] = 0);
    const take = (part, count) => parts[part].subarray(used[part], (used[part] += count));
    const description = JSON.parse(await inflated(parts.network)), whole = parts.floats !== undefined;
    for (const operation of description.operations)
      for (const [role, entry] of Object.entries(operation))
        if (entry && typeof entry.name === "string")
          operation[role] = known[entry.name] ||= tensorOf(entry, take, whole);
    return description;
  };

  // ---- The operations. Each maker gets (options, inputs, output) and returns what computes the output again.

  const two = (option, fill) => (option ? (option.length < 2 ? [fill, ...option] : option) : [fill, fill]);
  const image = ({ shape }) => (shape.length < 3 ? [shape[0], 1, shape[1]] : shape);

  const linear = ({ weight: { shape: [units, width], values, places }, bias }, [x], y) => {
    const start = bias ? bias.values : new Float32Array(units), rows = x.data.length / width;
    if (!places || 2 * places.length > units * width) {
      const dense = new Float32Array(units * width);
      places ? places.forEach((at, i) => (dense[at] = values[i])) : dense.set(values);
      return () => {
        for (let row = 0, o = 0; row < rows; row++)
          for (let unit = 0, k = 0; unit < units; unit++) {
            let sum = start[unit];
            for (let i = row * width, end = i + width; i < end; ) sum += dense[k++] * x.data[i++];
            y.data[o++] = sum;
          }
      };
    }
    const ends = new Uint32Array(units), columns = new Uint32Array(places.length);
    places.forEach((at, i) => (columns[i] = at % width, ends[Math.floor(at / width)] = i + 1));
    for (let unit = 1; unit < units; unit++) ends[unit] ||= ends[unit - 1];
    return () => {
      for (let row = 0, o = 0; row < rows; row++)
        for (let unit = 0, k = 0, base = row * width; unit < units; unit++) {
          let sum = start[unit];
          for (const end = ends[unit]; k < end; k++) sum += values[k] * x.data[base + columns[k]];
          y.data[o++] = sum;
        }
    };
  };

  // A copy of images within margins; returns [what fills it, the copy, its height, its width].
  const padded = (x, padding, fill) => {
    const [channels, height, width] = image(x), [[top, bottom], [left, right]] = two(padding, [0, 0]);
    const high = height + top + bottom, wide = width + left + right;
    if (high === height && wide === width) return [() => x.data, high, wide];
    const copy = new Float32Array(channels * high * wide).fill(fill);
    return [() => {
      for (let c = 0, from = 0; c < channels; c++)
        for (let row = 0; row < height; row++, from += width)
          copy.set(x.data.subarray(from, from + width), (c * high + top + row) * wide + left);
      return copy;
    }, high, wide];
  };

  // Every kept weight adds its multiple of a shifted image to the image of its unit.
  const convolution = ({ weight, bias, stride, padding, dilation, groups = 1 }, [x], y) => {
    const [filled, high, wide] = padded(x, padding, 0), [sy, sx] = two(stride, 1), [dy, dx] = two(dilation, 1);
    const [units, channels] = weight.shape, [kh, kw] = two(weight.shape.slice(2), 1), [, rows, columns] = image(y);
    const { values, places } = weight, each = channels * kh * kw, from = new Uint32Array(values.length);
    const ends = new Uint32Array(units);
    for (let i = 0; i < values.length; i++) {
      const at = places ? places[i] : i, unit = Math.floor(at / each), tap = at % (kh * kw);
      const channel = Math.floor(unit / (units / groups)) * channels + Math.floor((at % each) / (kh * kw));
      from[i] = (channel * high + Math.floor(tap / kw) * dy) * wide + (tap % kw) * dx;
      ends[unit] = i + 1;
    }
    for (let unit = 1; unit < units; unit++) ends[unit] ||= ends[unit - 1];
    return () => {
      const input = filled(), out = y.data, plane = rows * columns;
      for (let unit = 0, k = 0; unit < units; unit++) {
        out.fill(bias ? bias.values[unit] : 0, unit * plane, (unit + 1) * plane);
        for (const end = ends[unit]; k < end; k++)
          for (let row = 0, o = unit * plane, value = values[k]; row < rows; row++)
            for (let i = from[k] + row * sy * wide, last = o + columns; o < last; i += sx) out[o++] += value * input[i];
      }
    };
  };

  // step(sum so far, element) over each window; `count`: whether means count the padding.
  const pool = ({ kernel, stride, padding, dilation, count_padding: count = true }, [x], y, largest) => {
    const [filled, high, wide] = padded(x, padding, largest ? -Infinity : count ? 0 : NaN);
    const [kh, kw] = two(kernel, 1), [sy, sx] = two(stride, 1), [dy, dx] = two(dilation, 1);
    const [channels, rows, columns] = image(y);
    return () => {
      const input = filled();
      for (let c = 0, o = 0; c < channels; c++)
        for (let row = 0; row < rows; row++)
          for (let column = 0; column < columns; column++) {
            let best = -Infinity, sum = 0, n = 0;
            for (let i = 0; i < kh; i++)
              for (let j = 0; j < kw; j++) {
                const value = input[(c * high + row * sy + i * dy) * wide + column * sx + j * dx];
                if (value > best) best = value;
                if (value === value) (sum += value), n++;
              }
            y.data[o++] = largest ? best : sum / n;
          }
    };
  };

  const adaptive = (_, [x], y) => {
    const [channels, height, width] = image(x), [, rows, columns] = image(y);
    const low = (i, n, m) => Math.floor((i * m) / n), high = (i, n, m) => Math.ceil(((i + 1) * m) / n);
    return () => {
      for (let c = 0, o = 0; c < channels; c++)
        for (let r = 0; r < rows; r++)
          for (let s = 0; s < columns; s++) {
            const top = low(r, rows, height), bottom = high(r, rows, height);
            const left = low(s, columns, width), right = high(s, columns, width);
            let sum = 0;
            for (let i = top; i < bottom; i++)
              for (let j = left; j < right; j++) sum += x.data[(c * height + i) * width + j];
            y.data[o++] = sum / ((bottom - top) * (right - left));
          }
    };
  };

  // Sums into the positions that are left when some axes are gone.
  const mean = ({ axes }, [x], y) => {
    const to = new Uint32Array(x.data.length), sums = new Float64Array(y.data.length);
    const left = x.shape.map((size, axis) => (axes.includes(axis) ? 0 : size));
    for (let i = 0; i < to.length; i++) {
      let rest = i, place = 0, step = 1;
      for (let axis = x.shape.length - 1; axis >= 0; axis--) {
        if (left[axis]) (place += (rest % left[axis]) * step), (step *= left[axis]);
        rest = Math.floor(rest / x.shape[axis]);
      }
      to[i] = place;
    }
    const count = x.data.length / y.data.length;
    return () => {
      sums.fill(0);
      for (let i = 0; i < to.length; i++) sums[to[i]] += x.data[i];
      for (let i = 0; i < sums.length; i++) y.data[i] = sums[i] / count;
    };
  };

  const concat = ({ axis = 0 }, inputs, y) => {
    const runs = inputs.map((x) => product(x.shape.slice(axis))), all = runs.reduce((a, b) => a + b);
    return () => {
      for (let start = 0, at = 0; start < y.data.length; start += all)
        for (let i = (at = 0); i < inputs.length; at += runs[i++]) {
          const from = (start / all) * runs[i];
          y.data.set(inputs[i].data.subarray(from, from + runs[i]), start + at);
        }
    };
  };

  const softmax = ({ axis = 0 }, [x], y, log) => {
    const size = x.shape[axis], step = product(x.shape.slice(axis + 1));
    return () => {
      for (let block = 0; block < x.data.length; block += size * step)
        for (let first = block; first < block + step; first++) {
          let best = -Infinity, sum = 0;
          const last = first + size * step;
          for (let i = first; i < last; i += step) best = Math.max(best, x.data[i]);
          for (let i = first; i < last; i += step) sum += Math.exp(x.data[i] - best);
          for (let i = first; i < last; i += step)
            y.data[i] = log ? x.data[i] - best - Math.log(sum) : Math.exp(x.data[i] - best) / sum;
        }
    };
  };

  const scaleShift = ({ scale, shift }, [x], y) => {
    const each = x.data.length / x.shape[0];
    return () => {
      for (let i = 0; i < x.data.length; i++) {
        const channel = Math.floor(i / each);
        y.data[i] = x.data[i] * scale.values[channel] + shift.values[channel];
      }
    };
  };

  const add = (_, inputs, y) => () => {
    for (let i = 0; i < y.data.length; i++) {
      let sum = 0;
      for (const x of inputs) sum += x.data[i];
      y.data[i] = sum;
    }
  };

  // The error function by the series of Abramowitz and Stegun 7.1.6, whose terms all have one sign.
  const erf = (x) => {
    if (Math.abs(x) > 6) return Math.sign(x);
    let term = x, sum = x;
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) sum += term *= (2 * x * x) / (2 * n + 1);
    return (2 / Math.sqrt(Math.PI)) * Math.exp(-x * x) * sum;
  };
  const sigmoid = (v) => 1 / (1 + Math.exp(-v));
  const bell = (v) => Math.sqrt(2 / Math.PI) * (v + 0.044715 * v ** 3);

  // Of elements: (options) -> what one becomes.
  const each = (maker) => (options, [x], y) => {
    const become = maker(options);
    return () => {
      for (let i = 0; i < y.data.length; i++) y.data[i] = become(x.data[i]);
    };
  };

  const KINDS = {
    linear,
    conv1d: convolution,
    conv2d: convolution,
    scale_shift: scaleShift,
    relu: each(() => (v) => (v > 0 ? v : 0)),
    leaky_relu: each(({ slope = 0.01 }) => (v) => (v > 0 ? v : slope * v)),
    hardtanh: each(({ low = -1, high = 1 }) => (v) => Math.min(Math.max(v, low), high)),
    gelu: each(({ tanh }) => tanh ? (v) => (v / 2) * (1 + Math.tanh(bell(v))) : (v) => (v / 2) * (1 + erf(v / Math.SQRT2))),
    silu: each(() => (v) => v * sigmoid(v)),
    sigmoid: each(() => sigmoid),
    tanh: each(() => Math.tanh),
    max_pool1d: (...of) => pool(...of, true),
    max_pool2d: (...of) => pool(...of, true),
    avg_pool1d: (...of) => pool(...of, false),
    avg_pool2d: (...of) => pool(...of, false),
    adaptive_avg_pool1d: adaptive,
    adaptive_avg_pool2d: adaptive,
    mean,
    reshape: null, // the same data in another shape
    add,
    concat,
    softmax: (...of) => softmax(...of, false),
    log_softmax: (...of) => softmax(...of, true),
  };

  // ---- A network: its input is a Float32Array that the caller fills, run() returns the output.

  const open = async (base64, shapes) => {
    const { input, operations, preprocessing } = await readFile(bytesOf(base64));
    const x = { shape: input, data: new Float32Array(product(input)) }, slots = Object.assign(Object.create(null), { input: x }), steps = [];
    let last = "input";
    operations.forEach((operation, number) => {
      const inputs = (operation.inputs || [last]).map((name) => slots[name]);
      last = operation.output || `${number + 1}`;
      const shape = shapes[number];
      if (operation.kind === "reshape") slots[last] = { shape, data: inputs[0].data };
      else {
        slots[last] = { shape, data: new Float32Array(product(shape)) };
        steps.push(KINDS[operation.kind](operation, inputs, slots[last]));
      }
    });
    const output = slots[last].data, per = x.data.length / (input[0] || 1);
    return {
      // Raw data, as pixels, become the input: (x / scale - mean) / deviation.
      fill(raw) {
        for (let i = 0; i < x.data.length; i++) {
          const channel = Math.floor(i / per), p = preprocessing;
          x.data[i] = p ? (raw[i] / p.scale - p.mean[channel]) / p.deviation[channel] : raw[i];
        }
      },
      run() {
        for (const step of steps) step();
        return output;
      },
      // Shares of the classes: the softmax, unless the network ends with it.
      probabilities() {
        if (operations.at(-1).kind === "softmax") return Array.from(output);
        const best = Math.max(...output), powers = Array.from(output, (v) => Math.exp(v - best));
        const sum = powers.reduce((a, b) => a + b);
        return powers.map((power) => power / sum);
      },
    };
  };

  return { open, bytesOf };
})();
