// The page: what is dropped, chosen or filmed goes to the server that served it, and what comes back is shown.

import { drawFaces } from "./drawing.js";
import { Item, describe, found, save, toCsv } from "./results.js";
import { cameraFrames, decode, describeModel, dropped, encoded, isVideo, newCanvas, read, videoFrames } from "./sources.js";
import { Tracker } from "./tracking.js";

const REDRAW = 1; // s between two updates of a timeline
const SPEAK = 3; // s between two announcements of what the camera shows
const KEPT = 1800; // s of the camera whose rows are kept: a page may be left open for days

const part = (id) => document.getElementById(id);
/** Tells the items that come near the screen, or leave it. */
const nearby = new IntersectionObserver(
  (entries) => entries.forEach(({ target, isIntersecting }) => state.items.find((item) => item.element === target)?.come(isIntersecting)),
  { rootMargin: "1000px" },
);
const state = { token: "", model: null, items: [], stop: null };

function say(text) {
  part("status").textContent = text;
}

function mustWait() {
  if (state.stop) say("Still reading: wait, or press Stop first.");
  return Boolean(state.stop);
}

/** Do `work(signal)` unless some is being done; the Stop button aborts the signal. */
async function busy(work) {
  if (mustWait()) return;
  state.stop = new AbortController();
  setBusy(true);
  try {
    await work(state.stop.signal);
  } catch (error) {
    say(error.name === "AbortError" ? "Stopped." : error.message);
    if (error.status === 401) askForToken();
  } finally {
    state.stop = null;
    setBusy(false);
  }
}

/** Mark what has to wait. It is not disabled, as that would take the keyboard's focus away; `busy` says that it has to wait. */
function setBusy(yes) {
  for (const id of ["files", "camera", "clear"]) part(id).ariaDisabled = yes ? "true" : null;
  hide(part("stop"), !yes);
  if (!yes) part("progress").hidden = true;
}

/** Hide the element, or show it; the focus that it had goes to the file chooser. */
function hide(element, yes) {
  if (yes && element.contains(document.activeElement)) part("files").focus();
  element.hidden = yes;
}

function setProgress(done, total) {
  const progress = part("progress");
  progress.hidden = false;
  progress.max = total;
  progress.value = done;
}

function add(item) {
  state.items.push(item);
  part("list").append(item.element);
  part("results-head").hidden = false;
}

/** The camera's item comes first, where it can be watched beside the button that stops it. */
function addLive(item) {
  add(item);
  part("list").prepend(item.element);
}

async function model() {
  state.model ??= await describeModel({ token: state.token });
  return state.model;
}

/** Read files one after the other. files: a list of them, or its promise. */
function takeFiles(files) {
  busy(async (signal) => {
    const list = await files;
    if (!list.length) return;
    await model();
    let told = "";
    for (const [number, file] of list.entries()) {
      say(`Reading ${file.name}${list.length > 1 ? `, ${number + 1} of ${list.length}` : ""} ...`);
      setProgress(number, list.length);
      told = await takeFile(file, signal);
    }
    say(list.length > 1 ? summary(state.items.slice(-list.length)) : told);
  });
}

function summary(items) {
  const failed = items.filter((item) => item.failed).length;
  if (!failed) return `${items.length} files read; the results are below.`;
  return `${items.length - failed} of ${items.length} files read, ${failed} failed; the results are below.`;
}

/** Read one file of either kind; the sentence that says what was found. */
async function takeFile(file, signal) {
  try {
    await file.slice(0, 1).arrayBuffer();
  } catch {
    const item = new Item(file.name);
    add(item);
    return item.fail("it is a folder without pictures, or is no longer there; choose the files themselves");
  }
  return isVideo(file) ? takeVideo(file, signal) : takePicture(file, signal);
}

/** Read and show one picture; the sentence that says what was found. */
async function takePicture(file, signal) {
  const item = new Item(file.name);
  const { limits } = await model();
  let picture, rows, width;
  try {
    picture = await decode(file, limits.pixels);
    ({ rows, width } = await readPicture(file, picture, signal));
  } catch (error) {
    if (error.name === "AbortError" || [0, 401].includes(error.status)) throw error;
    add(item);
    return item.fail(error.message);
  }
  add(item);
  item.rows = rows;
  item.showFaces(rows);
  if (!picture) {
    item.note("This browser cannot show this format; the numbers are right all the same.");
  } else {
    item.showPicture(picture.canvas, rows, width);
    item.again = async () => (await decode(file, limits.pixels))?.canvas;
    nearby.observe(item.element);
    offerCopy(item, file, picture.width);
  }
  return `${file.name}: ${describe(rows)}`;
}

/** The rows of a picture, in px of the upright original; one that is too large for the server is sent reduced. */
async function readPicture(file, picture, signal) {
  const { limits } = await model();
  const fits = file.size <= limits.body - 4096 && (!picture || picture.width === picture.canvas.width);
  const blob = fits || !picture ? file : await encoded(picture.canvas);
  const rows = await read(blob, file.name, { token: state.token, signal });
  if (!picture) return { rows, width: 0 };
  const scale = picture.width / (fits ? picture.width : picture.canvas.width);
  return { rows: rows.map((row) => scaled(row, scale)), width: picture.width };
}

function scaled(row, scale) {
  if (row.face === null || scale === 1) return row;
  const sides = ["x", "y", "width", "height"].map((key) => [key, Math.round(row[key] * scale * 10) / 10]);
  return { ...row, ...Object.fromEntries(sides) };
}

/** Let the reader download the picture at its own size, boxes and bars drawn on it. */
function offerCopy(item, file, width) {
  item.saveButton.hidden = false;
  const copy = async () => {
    const whole = await decode(file, Infinity);
    if (!whole) throw new Error("it is no longer there, or is another picture by now: choose it again.");
    await saveCopy(whole.canvas, found(item.rows), whole.canvas.width / width, file.name);
  };
  item.saveButton.onclick = () => copy().catch((error) => say(`${file.name}: ${error.message}`));
}

async function saveCopy(canvas, rows, scale, name) {
  drawFaces(canvas, rows, scale, { bars: true });
  save(await encoded(canvas, "image/png"), `${name.replace(/\.[^.]*$/, "")}-mien.png`);
}

/** Read a video's frames one after another; the sentence that says what was found. */
async function takeVideo(file, signal) {
  const item = new Item(file.name);
  add(item);
  const film = new Film(item);
  try {
    for await (const { canvas, time, duration } of videoFrames(file, Number(part("rate").value), signal)) {
      await film.show(canvas, time, signal);
      setProgress(Math.min(time, duration), duration);
    }
  } catch (error) {
    if (error.name === "AbortError" || [0, 401].includes(error.status)) throw error;
    item.fail(error.message);
  } finally {
    await film.finish();
  }
  return `${file.name}: ${film.frames} frames read, ${film.tracks} ${film.tracks === 1 ? "face" : "faces"} followed.`;
}

function takeCamera() {
  busy(async (signal) => {
    await model();
    const item = new Item("Camera");
    const film = new Film(item, KEPT);
    let spoken = -Infinity;
    say("Waiting for the camera ...");
    try {
      for await (const { canvas, time } of cameraFrames(signal)) {
        if (!film.frames) addLive(item);
        const rows = await film.show(canvas, time, signal);
        if (time - spoken < SPEAK) continue;
        spoken = time;
        say(`Camera: ${describe(rows)}`);
      }
    } catch (error) {
      if (error.name !== "AbortError") throw error.status === undefined ? new Error(cameraTrouble(error)) : error;
    } finally {
      await film.finish();
    }
    say(`Camera stopped: ${film.frames} frames read.`);
  });
}

function cameraTrouble(error) {
  const known = {
    NotAllowedError: "The browser was not allowed to use the camera; allow it for this page and try again.",
    NotFoundError: "There is no camera.",
    NotReadableError: "The camera is in use by another program.",
  };
  return known[error.name] ?? `The camera failed: ${error.message}`;
}

/** A video or the camera: its frames as they come, its faces numbered; the rows of the last `kept` seconds. */
class Film {
  #tracker = new Tracker();
  #drawn = -Infinity;
  #last = null;

  constructor(item, kept = Infinity) {
    this.item = item;
    this.kept = kept;
    this.frames = 0;
  }

  get tracks() {
    return this.#tracker.count;
  }

  /** Send one frame and show it; its rows. */
  async show(canvas, time, signal) {
    const rows = await read(await encoded(canvas), this.item.name, { token: state.token, signal });
    const numbers = this.#tracker.follow(found(rows), time);
    const frame = { frame: this.frames, time_s: Math.round(time * 1000) / 1000 };
    const timed = rows.map((row) => ({ ...row, ...frame, track: row.face === null ? null : numbers[row.face - 1] }));
    this.frames += 1;
    this.#last = { canvas, rows: timed };
    this.item.rows.push(...timed);
    this.item.rows.splice(0, this.item.rows.findIndex((row) => row.time_s >= time - this.kept));
    this.item.showPicture(canvas, timed, canvas.width);
    this.item.showFaces(timed);
    await this.#update(time);
    return timed;
  }

  async #update(time) {
    if (time - this.#drawn < REDRAW) return;
    this.#drawn = time;
    this.item.showTimeline((await model()).labels);
  }

  async finish() {
    if (!this.#last) return;
    this.item.showTimeline((await model()).labels);
    this.item.saveButton.hidden = false;
    this.item.saveButton.textContent = "Download the last frame, annotated";
    this.item.saveButton.onclick = () => {
      const { canvas, rows } = this.#last;
      const copy = newCanvas(canvas.width, canvas.height);
      copy.getContext("2d").drawImage(canvas, 0, 0);
      saveCopy(copy, found(rows), 1, this.item.name);
    };
  }
}

function saveCsv() {
  const rows = state.items.flatMap((item) => item.rows);
  if (!rows.length) {
    say("There is nothing to save.");
    return;
  }
  save(new Blob([toCsv(rows)], { type: "text/csv" }), "mien-faces.csv");
}

function clear() {
  if (mustWait()) return;
  nearby.disconnect();
  state.items = [];
  part("list").replaceChildren();
  part("results-head").hidden = true;
  say("Cleared.");
  part("files").focus();
}

function askForToken() {
  part("token-form").hidden = false;
  part("token").focus();
}

async function introduce() {
  try {
    const { card, sha256, licence, version } = await model();
    part("model").textContent = `mien ${version}, model ${card.method} (licence ${licence}), SHA-256 ${sha256.slice(0, 12)}`;
    hide(part("token-form"), true);
    if (part("status").textContent) say("");
  } catch (error) {
    say(error.message);
    if (error.status === 401) askForToken();
  }
}

function hasCamera() {
  return Boolean(navigator.mediaDevices?.getUserMedia);
}

function explain() {
  part("privacy").textContent =
    `Pictures go to mien at ${location.host} and nowhere else; it forgets them once they are read.`;
  part("camera").disabled = !hasCamera();
  part("camera-note").textContent = hasCamera()
    ? `Of the camera the last ${KEPT / 60} minutes are kept, for the charts and the CSV.`
    : "The camera needs this page to be on this machine (localhost) or on HTTPS.";
}

function listen() {
  part("files").addEventListener("change", (event) => { takeFiles([...event.target.files]); event.target.value = ""; });
  part("camera").addEventListener("click", takeCamera);
  part("stop").addEventListener("click", () => state.stop?.abort());
  part("csv").addEventListener("click", saveCsv);
  part("clear").addEventListener("click", clear);
  part("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    state.token = part("token").value;
    introduce();
  });
  const drop = part("drop");
  document.addEventListener("dragover", (event) => { event.preventDefault(); drop.classList.add("over"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    takeFiles(dropped(event.dataTransfer));
  });
  const redraw = async () => {
    const { labels } = await model();
    state.items.filter((item) => !item.timeline.hidden).forEach((item) => item.showTimeline(labels));
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  window.addEventListener("resize", redraw);
}

explain();
listen();
introduce();
