// Pictures, videos and the camera: each gives frames as canvases, and frames go to the server as they are needed.

const LONGEST_FRAME = 1280; // px of a video's longer side, as it is sent
const LONGEST_SIDE = 32767; // px of a canvas: Firefox's limit, the least of the usual browsers' (MDN, "Maximum canvas size")
const JPEG_QUALITY = 0.92;
const LONGEST_SEEK = 10; // s

const VIDEO_NAME = /\.(mp4|m4v|mov|webm|mkv|avi|ogv|mpe?g|3gp)$/i;
const PICTURE_NAME = /\.(jp2|j2k|tiff?|hei[cf]|hif|avif|p[bgnp]m|dib|mpo)$/i; // which a browser may have no type for

/** A server's refusal, or no server at all. */
export class Refused extends Error {
  constructor(status, reason, retryAfter = 0) {
    super(reason);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** The server's rows for one encoded picture; waits and tries again while the server is busy. Throws Refused. */
export async function read(blob, name, { token, signal }) {
  for (;;) {
    try {
      return await send(blob, name, { token, signal });
    } catch (error) {
      if (!(error instanceof Refused) || error.status !== 429) throw error;
      await pause(error.retryAfter || 1, signal);
    }
  }
}

async function send(blob, name, { token, signal }) {
  const form = new FormData();
  form.append("pictures", blob, name);
  const rows = await ask("/v1/read", { token, signal, method: "POST", body: form });
  return rows.map((row) => ({ ...row, source: name })); // on its way a name loses its quotation marks to %22
}

/** What the server says of its model and limits. Throws Refused. */
export function describeModel({ token }) {
  return ask("/v1/model", { token });
}

async function ask(path, { token, ...options }) {
  if (/[^ -~]/.test(token)) throw new Refused(401, "the token has a character that no token of mien's has: paste it again");
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  let answer;
  try {
    answer = await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "mien does not answer: is `mien serve` still running?");
  }
  if (answer.ok) return answer.json();
  const reason = await answer.json().then((content) => content.error.reason, () => answer.statusText);
  throw new Refused(answer.status, reason, Number(answer.headers.get("Retry-After")));
}

export function isVideo(file) {
  return file.type.startsWith("video/") || VIDEO_NAME.test(file.name);
}

/** The files of a drop. A folder stands for the pictures and videos in it and below, by name; for itself where there are none. */
export async function dropped({ files, items }) {
  const entries = [...items].map((item) => item.webkitGetAsEntry()); // now: they are gone once this function waits
  const given = [...files];
  if (entries.length !== given.length) return given;
  const found = await Promise.all(entries.map((entry, place) => (entry?.isDirectory ? inFolder(entry) : [given[place]])));
  return found.flatMap((those, place) => (those.length ? those : [given[place]]));
}

async function inFolder(folder) {
  const found = [];
  try {
    for (const entry of await listed(folder)) {
      if (entry.isDirectory) found.push(...(await inFolder(entry)));
      else found.push(...(await opened(entry)));
    }
  } catch (error) {
    if (!(error instanceof DOMException)) throw error; // one that cannot be opened holds nothing
  }
  return found;
}

async function listed(folder) {
  const reader = folder.createReader();
  const all = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // up to 100 at a time
    if (!some.length) return all.sort((one, other) => (one.name < other.name ? -1 : 1));
    all.push(...some);
  }
}

/** The file under its path from the folder on, where it is a picture or a video. */
async function opened(entry) {
  const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
  const wanted = !file.name.startsWith("._") && (file.type.startsWith("image/") || PICTURE_NAME.test(file.name) || isVideo(file));
  return wanted ? [new File([file], entry.fullPath.slice(1), { type: file.type })] : [];
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
  });
}

/** The picture drawn upright on a canvas, at most `most` px in all and no longer than a canvas can be; null when this browser cannot decode it. */
export async function decode(file, most) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return null;
  }
  const turn = await missingTurn(file, bitmap);
  const [width, height] = turn > 4 ? [bitmap.height, bitmap.width] : [bitmap.width, bitmap.height];
  const scale = Math.min(1, Math.sqrt(most / (width * height)), LONGEST_SIDE / Math.max(width, height));
  const canvas = newCanvas(Math.floor(width * scale) || 1, Math.floor(height * scale) || 1);
  const context = canvas.getContext("2d");
  context.scale(canvas.width / width, canvas.height / height);
  context.transform(...TURNS[turn](bitmap.width, bitmap.height));
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return { canvas, width, height };
}

const TURNS = { // EXIF orientation -> what puts a picture of w x h px upright (EXIF 2.32, table of tag 274)
  1: () => [1, 0, 0, 1, 0, 0],
  2: (w) => [-1, 0, 0, 1, w, 0],
  3: (w, h) => [-1, 0, 0, -1, w, h],
  4: (w, h) => [1, 0, 0, -1, 0, h],
  5: () => [0, 1, 1, 0, 0, 0],
  6: (w, h) => [0, 1, -1, 0, h, 0],
  7: (w, h) => [0, -1, -1, 0, h, w],
  8: (w) => [0, -1, 1, 0, 0, w],
};

/** The EXIF orientation that the browser has left undone: Chromium turns every picture but a WebP, and mien turns that, too. */
async function missingTurn(file, bitmap) {
  const head = new DataView(await file.slice(0, 30).arrayBuffer());
  try {
    if (text(head, 0) !== "RIFF" || text(head, 8) !== "WEBP" || text(head, 12) !== "VP8X") return 1;
    const asStored = 1 + (head.getUint32(24, true) & 0xffffff) === bitmap.width;
    const turn = orientation(new DataView(await file.arrayBuffer()));
    return turn in TURNS && (asStored || turn <= 4) ? turn : 1;
  } catch (error) {
    if (error instanceof RangeError) return 1; // the file ends before it says
    throw error;
  }
}

/** What a WebP's EXIF chunk says, 1 where there is none. */
function orientation(view) {
  let at = 12;
  while (text(view, at) !== "EXIF") {
    const size = view.getUint32(at + 4, true);
    at += 8 + size + (size % 2);
  }
  const start = text(view, at + 8) === "Exif" ? at + 14 : at + 8;
  const little = view.getUint16(start) === 0x4949;
  const first = start + view.getUint32(start + 4, little);
  for (let entry = first + 2; entry < first + 2 + 12 * view.getUint16(first, little); entry += 12) {
    if (view.getUint16(entry, little) === 0x0112) return view.getUint16(entry + 8, little);
  }
  return 1;
}

function text(view, at) {
  return String.fromCharCode(...[0, 1, 2, 3].map((place) => view.getUint8(at + place)));
}

export function newCanvas(width, height) {
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  return canvas;
}

export function encoded(canvas, type = "image/jpeg") {
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("the picture cannot be encoded"))), type, JPEG_QUALITY);
  });
}

/** The frames of a video file, `rate` a second: {canvas, time, duration}. Throws Error when it cannot be played. */
export async function* videoFrames(file, rate, signal) {
  const video = document.createElement("video");
  const address = URL.createObjectURL(file);
  try {
    Object.assign(video, { muted: true, playsInline: true, preload: "auto", src: address });
    await event(video, "loadeddata", signal);
    const duration = await lengthOf(video, signal);
    for (let frame = 0; frame === 0 || frame / rate < duration; frame += 1) {
      await seek(video, frame / rate, signal);
      yield { canvas: grab(video), time: frame / rate, duration };
    }
  } finally {
    video.removeAttribute("src");
    video.load();
    URL.revokeObjectURL(address);
  }
}

/** Seconds. A recording made by a browser may not know its own length until its end was sought. */
async function lengthOf(video, signal) {
  if (Number.isFinite(video.duration)) return video.duration;
  await seek(video, 1e7, signal);
  return Number.isFinite(video.duration) ? video.duration : video.currentTime;
}

async function seek(video, time, signal) {
  if (video.currentTime === time && video.readyState >= 2) return;
  const sought = event(video, "seeked", signal);
  video.currentTime = time;
  await sought;
}

async function event(video, name, signal) {
  signal.throwIfAborted();
  const settled = new AbortController();
  const until = { signal: settled.signal };
  try {
    await new Promise((resolve, reject) => {
      const late = setTimeout(() => reject(new Error("the video stopped answering")), LONGEST_SEEK * 1000);
      settled.signal.addEventListener("abort", () => clearTimeout(late));
      video.addEventListener(name, resolve, until);
      video.addEventListener("error", () => reject(new Error("this browser cannot play the video")), until);
      signal.addEventListener("abort", () => reject(signal.reason), until);
    });
  } finally {
    settled.abort();
  }
}

/** The camera's frames, as fast as they are asked for, until `signal`: {canvas, time}. Throws Error when it gives no more. */
export async function* cameraFrames(signal) {
  const stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: LONGEST_FRAME } }, audio: false });
  const video = document.createElement("video");
  try {
    Object.assign(video, { muted: true, playsInline: true, srcObject: stream });
    await Promise.all([event(video, "loadeddata", signal), video.play()]);
    const start = performance.now();
    while (!signal.aborted) {
      if (!stream.active) throw new Error("it gives no more pictures; plug it in, or allow it, and start it again.");
      yield { canvas: grab(video), time: (performance.now() - start) / 1000 };
      await new Promise(requestAnimationFrame);
    }
  } finally {
    stream.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
  }
}

function grab(video) {
  const scale = Math.min(1, LONGEST_FRAME / Math.max(video.videoWidth, video.videoHeight));
  const canvas = newCanvas(Math.round(video.videoWidth * scale), Math.round(video.videoHeight * scale));
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  return canvas;
}
