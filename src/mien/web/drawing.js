// Boxes and bars on a picture, and probabilities over time.

export const COLOURS = { // Okabe and Ito's palette, as mien.draw has it
  neutral: "#bbbbbb", happy: "#f0e442", sad: "#56b4e9", surprise: "#e69f00",
  fear: "#cc79a7", disgust: "#009e73", anger: "#d55e00", contempt: "#0072b2",
};
const LIGHT = "#ffffff";
const PLATE = "#101216";
const TRACK = "#3a3e46";
export const UNSURE_BELOW = 0.5;
const SMALLEST_TYPE = 11; // px
const BESIDE_NAMES = 7.2; // width of bar, percent and gaps, in multiples of the type's size
const MOST_POINTS = 800; // of one chart: about as many as it has pixels

/** Expressions and probabilities of a row: the model's classes, in the table's order. */
export function classesOf(row) {
  return Object.entries(row)
    .filter(([key, value]) => key.startsWith("p_") && value !== null)
    .map(([key, value]) => ({ name: key.slice(2), value }));
}

/** The same, the likeliest first. */
export function ranked(row) {
  return classesOf(row).sort((a, b) => b.value - a.value);
}

export function percent(value) {
  return `${Math.round(value * 100)}%`;
}

/** "happy 92%", or "unsure: happy 41%" when less than even. */
export function verdict(row) {
  const text = `${row.expression} ${percent(row.confidence)}`;
  return row.confidence < UNSURE_BELOW ? `unsure: ${text}` : text;
}

/** Draw boxes and labels. `scale`: px of the canvas to one px of the picture. */
export function drawFaces(canvas, rows, scale, { bars = false } = {}) {
  const context = canvas.getContext("2d");
  const places = rows.map((row) => place(row, scale));
  const size = typeSize(canvas);
  rows.forEach((row, index) => drawBox(context, row, places[index], size));
  if (!bars) return;
  rows.forEach((row, index) => {
    const others = places.filter((_, other) => other !== index);
    drawBars(context, row, places[index], others, size);
  });
}

function place(row, scale) {
  return { left: row.x * scale, top: row.y * scale, width: row.width * scale, height: row.height * scale };
}

function typeSize(canvas) {
  return Math.max(SMALLEST_TYPE, Math.min(canvas.width, canvas.height) / 26);
}

function font(size) {
  return `${Math.round(size)}px system-ui, sans-serif`;
}

function drawBox(context, row, box, size) {
  const line = Math.max(2, size / 7);
  const colour = COLOURS[row.expression] ?? LIGHT;
  for (const [width, style] of [[line + 2, PLATE], [line, colour]]) {
    context.lineWidth = width;
    context.strokeStyle = style;
    context.strokeRect(box.left, box.top, box.width, box.height);
  }
  drawLabel(context, `${row.track ?? row.face}  ${verdict(row)}`, box, size, colour);
}

function drawLabel(context, text, box, size, colour) {
  context.font = font(size);
  context.textBaseline = "middle";
  const width = context.measureText(text).width + size * 0.8;
  const height = size * 1.5;
  const left = Math.max(0, Math.min(box.left, context.canvas.width - width));
  const top = box.top >= height ? box.top - height : Math.max(0, box.top);
  context.fillStyle = colour;
  context.fillRect(left, top, width, height);
  context.fillStyle = isDark(colour) ? LIGHT : PLATE;
  context.fillText(text, left + size * 0.4, top + height / 2);
}

function isDark(colour) {
  const [red, green, blue] = [1, 3, 5].map((start) => parseInt(colour.slice(start, start + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue <= 100; // ITU-R 601 luma
}

/** A row for each class beside the box, in smaller type if need be, where it hides no face. */
function drawBars(context, row, box, others, wanted) {
  const classes = classesOf(row);
  const namesWidth = (size) => {
    context.font = font(size);
    return Math.max(...classes.map(({ name }) => context.measureText(name).width));
  };
  const gap = wanted * 0.4;
  const left = box.left - gap;
  const right = context.canvas.width - (box.left + box.width) - gap;
  const room = Math.max(left, right) / (namesWidth(wanted) + wanted * BESIDE_NAMES);
  const size = Math.floor(Math.max(SMALLEST_TYPE, wanted * Math.min(1, room)));
  const names = namesWidth(size);
  const width = names + size * BESIDE_NAMES;
  const height = size * (1.3 * classes.length + 0.5);
  const start = width <= right || right >= left ? box.left + box.width + gap : left - width;
  const panel = { left: start, top: Math.max(0, Math.min(box.top, context.canvas.height - height)), width, height };
  if (start < 0 || start + width > context.canvas.width || others.some((other) => meet(panel, other))) return;
  context.fillStyle = PLATE;
  context.fillRect(panel.left, panel.top, width, height);
  classes.forEach((one, index) => {
    drawBar(context, one, panel.left + size * 0.4, panel.top + size * (0.9 + 1.3 * index), { names, size });
  });
}

function meet(a, b) {
  return a.left < b.left + b.width && b.left < a.left + a.width && a.top < b.top + b.height && b.top < a.top + a.height;
}

function drawBar(context, { name, value }, left, middle, { names, size }) {
  const start = left + names + size * 0.4;
  context.fillStyle = LIGHT;
  context.fillText(name, left, middle);
  context.fillStyle = TRACK;
  context.fillRect(start, middle - size * 0.3, size * 3.2, size * 0.6);
  context.fillStyle = COLOURS[name] ?? LIGHT;
  context.fillRect(start, middle - size * 0.3, size * 3.2 * value, size * 0.6);
  context.fillStyle = LIGHT;
  context.fillText(percent(value), start + size * 3.5, middle);
}

/** Stacked probabilities of one face over time. rows: its rows, each with `time_s`; labels: bottom first. */
export function drawTimeline(canvas, rows, labels, { from, to }) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(canvas.clientWidth * ratio));
  canvas.height = Math.max(1, Math.round(canvas.clientHeight * ratio));
  const context = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const size = 12 * ratio;
  const bottom = canvas.height - size * 1.4;
  const x = (time) => ((time - from) / Math.max(to - from, 1e-6)) * canvas.width;
  context.fillStyle = style.getPropertyValue("--track");
  context.fillRect(0, 0, canvas.width, bottom);
  for (const run of runs(thinned(rows))) stack(context, run, labels, { x, bottom, ratio });
  context.fillStyle = style.getPropertyValue("--faint");
  context.font = font(size);
  context.textBaseline = "bottom";
  context.fillText(`${from.toFixed(1)} s`, 0, canvas.height);
  context.textAlign = "right";
  context.fillText(`${to.toFixed(1)} s`, canvas.width, canvas.height);
}

function thinned(rows) {
  const step = Math.ceil(rows.length / MOST_POINTS);
  return rows.filter((_, index) => index % step === 0);
}

/** The stretches in which the face was in sight: a gap of more than three usual steps ends one. */
function runs(rows) {
  const steps = rows.slice(1).map((row, index) => row.time_s - rows[index].time_s).sort((a, b) => a - b);
  const usual = steps.length ? steps[Math.floor(steps.length / 2)] : 0;
  const found = [[]];
  rows.forEach((row, index) => {
    if (index && row.time_s - rows[index - 1].time_s > 3 * usual) found.push([]);
    found.at(-1).push(row);
  });
  return found;
}

function stack(context, rows, labels, { x, bottom, ratio }) {
  const lower = rows.map(() => 0);
  const edges = rows.length > 1 ? rows.map((row) => x(row.time_s)) : [x(rows[0].time_s), x(rows[0].time_s) + 2 * ratio];
  for (const label of labels) {
    const upper = rows.map((row, index) => lower[index] + (row[`p_${label}`] ?? 0));
    context.fillStyle = COLOURS[label] ?? LIGHT;
    context.beginPath();
    edges.forEach((edge, index) => context.lineTo(edge, bottom * (1 - upper[Math.min(index, rows.length - 1)])));
    for (let index = edges.length - 1; index >= 0; index -= 1) {
      context.lineTo(edges[index], bottom * (1 - lower[Math.min(index, rows.length - 1)]));
    }
    context.fill();
    upper.forEach((value, index) => { lower[index] = value; });
  }
}
