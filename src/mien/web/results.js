// What was read, as tables, pictures and files.

import { COLOURS, UNSURE_BELOW, classesOf, drawFaces, drawTimeline, percent, ranked, verdict } from "./drawing.js";

export const COLUMNS = [ // mien.tables.COLUMNS
  "source", "face", "x", "y", "width", "height", "detection_score", "expression", "confidence",
  ...Object.keys(COLOURS).map((name) => `p_${name}`), "status",
];
const VIDEO_COLUMNS = ["frame", "time_s", "track"];
const FORMULA = /^'*[=+\-@\t\r]/; // mien.images.FORMULA: a spreadsheet takes a cell that starts so for a formula
const MOST_CHARTS = 8;
const FEWEST_FRAMES = 2; // of a chart

/** One picture, video or camera on the page. */
export class Item {
  constructor(name) {
    const part = document.getElementById("item-template").content.cloneNode(true);
    this.name = name;
    this.rows = [];
    this.failed = false;
    this.again = null; // gives the picture, as a canvas, once more
    this.near = true;
    this.element = part.querySelector("article");
    this.canvas = part.querySelector("canvas");
    this.faces = part.querySelector(".faces");
    this.timeline = part.querySelector(".timeline");
    this.saveButton = part.querySelector(".save");
    part.querySelector("h3").textContent = name;
    this.canvas.hidden = true;
  }

  /** Near the screen the picture is drawn; elsewhere its canvas keeps its place, but no pixels, as there may be thousands. */
  async come(near) {
    if (this.near === near) return;
    this.near = near;
    if (!near) this.canvas.width = this.canvas.width; // which clears it
    const picture = near && (await this.again());
    if (picture && this.near) this.showPicture(picture, this.rows, this.width);
  }

  /** The picture with the boxes of `rows`. width: of the picture whose px the rows are in. */
  showPicture(source, rows, width) {
    this.width = width;
    const scale = Math.min(1, 1600 / Math.max(source.width, source.height));
    this.canvas.width = Math.round(source.width * scale);
    this.canvas.height = Math.round(source.height * scale);
    this.canvas.getContext("2d").drawImage(source, 0, 0, this.canvas.width, this.canvas.height);
    drawFaces(this.canvas, found(rows), this.canvas.width / width);
    this.canvas.setAttribute("aria-label", `${this.name}: ${describe(rows)}`);
    this.canvas.hidden = false;
  }

  /** A table of probabilities for each face, or why there is none. */
  showFaces(rows) {
    const parts = found(rows).map(faceTable);
    const failed = rows.filter((row) => row.status !== "ok");
    this.faces.replaceChildren(...parts, ...failed.map((row) => paragraph(row.status, row.status !== "no face")));
  }

  /** Show, and keep for the CSV, why the whole could not be read; the sentence that says so. */
  fail(reason) {
    this.failed = true;
    this.rows.push({ source: this.name, face: null, status: `error: ${reason}` });
    this.faces.append(paragraph(`error: ${reason}`, true));
    return `${this.name}: error: ${reason}`;
  }

  note(text) {
    this.faces.append(paragraph(text, false));
  }

  /** Charts and table of the faces over time. labels: the model's classes in order. */
  showTimeline(labels) {
    const tracks = byTrack(this.rows);
    if (!tracks.length && this.timeline.hidden) return;
    if (this.timeline.hidden) this.#openTimeline(labels);
    const long = tracks.filter((track) => track.length >= FEWEST_FRAMES);
    const timed = this.rows.filter((row) => row.time_s !== undefined); // the row of `fail` has no time
    const span = { from: timed[0].time_s, to: timed.at(-1).time_s };
    this.#fitCharts(Math.min(long.length, MOST_CHARTS));
    long.slice(0, MOST_CHARTS).forEach((track, index) => drawChart(this.charts.children[index], track, labels, span));
    this.timeline.querySelector("tbody").replaceChildren(...tracks.map((track) => trackRow(track, labels)));
  }

  #openTimeline(labels) {
    this.timeline.append(document.getElementById("tracks-template").content.cloneNode(true));
    this.timeline.hidden = false;
    this.charts = this.timeline.querySelector(".charts");
    this.timeline.querySelector(".legend").append(...labels.map(legendEntry));
  }

  #fitCharts(count) {
    while (this.charts.children.length > count) this.charts.lastChild.remove();
    while (this.charts.children.length < count) {
      const figure = document.createElement("figure");
      const canvas = document.createElement("canvas");
      canvas.setAttribute("role", "img");
      figure.append(document.createElement("p"), canvas);
      this.charts.append(figure);
    }
  }
}

export function found(rows) {
  return rows.filter((row) => row.face !== null);
}

/** A sentence for screen readers. */
export function describe(rows) {
  const faces = found(rows);
  if (!faces.length) return rows[0]?.status ?? "nothing read";
  const parts = faces.slice(0, 5).map((row) => verdict(row));
  const more = faces.length > parts.length ? ", and more" : "";
  return `${faces.length} ${faces.length === 1 ? "face" : "faces"}: ${parts.join(", ")}${more}`;
}

function faceTable(row) {
  const table = document.getElementById("face-template").content.cloneNode(true).firstElementChild;
  const [, runnerUp] = ranked(row);
  const strong = document.createElement("strong");
  strong.textContent = verdict(row);
  const second = document.createElement("span");
  second.className = "second";
  second.textContent = `, then ${runnerUp.name} ${percent(runnerUp.value)}`;
  table.caption.append(`Face ${row.track ?? row.face}: `, strong, second);
  const sure = row.confidence >= UNSURE_BELOW;
  table.tBodies[0].append(...classesOf(row).map((one) => classRow(one, sure && one.name === row.expression)));
  return table;
}

function classRow({ name, value }, top) {
  const row = document.createElement("tr");
  row.classList.toggle("top", top);
  const head = document.createElement("th");
  head.scope = "row";
  head.textContent = name;
  const cell = document.createElement("div");
  cell.className = "cell";
  cell.append(bar(name, value), span("percent", percent(value)));
  row.append(head, document.createElement("td"));
  row.lastChild.append(cell);
  return row;
}

function bar(name, value) {
  const track = document.createElement("div");
  track.className = "bar";
  track.setAttribute("aria-hidden", "true");
  const fill = document.createElement("div");
  fill.className = value < 0.005 ? "fill empty" : "fill";
  fill.style.width = `${value * 100}%`;
  fill.style.background = COLOURS[name] ?? "currentColor";
  track.append(fill);
  return track;
}

function span(className, text) {
  const element = document.createElement("span");
  element.className = className;
  element.textContent = text;
  return element;
}

function paragraph(text, failed) {
  const element = document.createElement("p");
  element.className = failed ? "failed" : "";
  element.textContent = text;
  return element;
}

function legendEntry(label) {
  const entry = document.createElement("li");
  const swatch = document.createElement("i");
  swatch.style.background = COLOURS[label] ?? "currentColor";
  entry.append(swatch, label);
  return entry;
}

function byTrack(rows) {
  const tracks = new Map();
  for (const row of found(rows)) {
    if (!tracks.has(row.track)) tracks.set(row.track, []);
    tracks.get(row.track).push(row);
  }
  return [...tracks.values()];
}

function drawChart(figure, track, labels, span) {
  const [text, canvas] = figure.children;
  text.textContent = `Face ${track[0].track}`;
  canvas.setAttribute("aria-label", `Probabilities of face ${track[0].track} over time; the table below sums them up`);
  drawTimeline(canvas, track, labels, span);
}

function trackRow(track, labels) {
  const counts = new Map();
  for (const row of track) counts.set(row.expression, (counts.get(row.expression) ?? 0) + 1);
  const [often, count] = [...counts].sort((a, b) => b[1] - a[1])[0];
  const means = labels
    .map((name) => ({ name, value: track.reduce((sum, row) => sum + (row[`p_${name}`] ?? 0), 0) / track.length }))
    .sort((a, b) => b.value - a.value);
  const cells = [
    `${track[0].track}`, `${track[0].time_s.toFixed(1)} s`, `${track.at(-1).time_s.toFixed(1)} s`, `${track.length}`,
    `${often} (${percent(count / track.length)} of frames)`,
    means.slice(0, 2).map(({ name, value }) => `${name} ${percent(value)}`).join(", "),
  ];
  const row = document.createElement("tr");
  cells.forEach((text, index) => {
    const cell = document.createElement(index ? "td" : "th");
    if (!index) cell.scope = "row";
    cell.textContent = text;
    row.append(cell);
  });
  return row;
}

/** The rows as CSV (RFC 4180), in the columns of mien's faces.csv; videos add frame, time_s and track. */
export function toCsv(rows) {
  const [source, ...others] = COLUMNS;
  const timed = rows.some((row) => "time_s" in row);
  const columns = [source, ...(timed ? VIDEO_COLUMNS : []), ...others];
  const lines = rows.map((row) => columns.map((column) => csvCell(row[column])).join(","));
  return [columns.join(","), ...lines, ""].join("\r\n");
}

function csvCell(value) {
  if (value === null || value === undefined) return "";
  if (typeof value !== "string") return String(value);
  const harmless = FORMULA.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(harmless) ? `"${harmless.replaceAll('"', '""')}"` : harmless;
}

export function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
