// Pictures, videos and the camera: each gives frames as canvases, and frames go to the server as they are needed.

const LONGEST_FRAME = 1280; // px of a video's longer side, as it is sent
const JPEG_QUALITY = 0.92;
const LONGEST_SEEK = 10; // s

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

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => { clearTimeout(timer); reject(signal.reason); }, { once: true });
  });
}

/** The picture drawn upright on a canvas, at most `most` px in all; null when this browser cannot decode it. */
export async function decode(file, most) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    return null;
  }
  const scale = Math.min(1, Math.sqrt(most / (bitmap.width * bitmap.height)));
  const canvas = newCanvas(Math.floor(bitmap.width * scale) || 1, Math.floor(bitmap.height * scale) || 1);
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const size = { canvas, width: bitmap.width, height: bitmap.height };
  bitmap.close();
  return size;
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

/** The camera's frames, as fast as they are asked for, until `signal`: {canvas, time}. */
export async function* cameraFrames(signal) {
  const stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: LONGEST_FRAME } }, audio: false });
  const video = document.createElement("video");
  try {
    Object.assign(video, { muted: true, playsInline: true, srcObject: stream });
    await Promise.all([event(video, "loadeddata", signal), video.play()]);
    const start = performance.now();
    while (!signal.aborted) {
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
