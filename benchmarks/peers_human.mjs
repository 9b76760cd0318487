// @vladmandic/human in Node with the wasm backend, for peers.py: node peers_human.mjs REQUEST.json ANSWER.json
//
// human loads its models by fetch(), which Node does not have for files: those addresses are read from the disk here.
// Everything but finding the face and reading its expression is switched off. For `video` its caches are on, as they are
// by default: where a frame resembles the one before it may go on with what it knew.

import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';

const [request, result] = process.argv.slice(2);
const { frames, options, started } = JSON.parse(fs.readFileSync(request, 'utf8'));

const remote = globalThis.fetch;
globalThis.fetch = async (address, more) => (String(address).startsWith('file:')
  ? new Response(fs.readFileSync(fileURLToPath(String(address))), { status: 200 })
  : remote(address, more));

const modules = path.join(options.folder, 'node_modules');
const load = createRequire(path.join(modules, 'index.js'));
const wasm = `${path.join(modules, '@tensorflow', 'tfjs-backend-wasm', 'dist')}/`;
load('@tensorflow/tfjs-backend-wasm').setWasmPaths(wasm);
const { Human } = load(path.join(modules, '@vladmandic', 'human', 'dist', 'human.node-wasm.js'));

const off = { enabled: false };
const config = {
  backend: 'wasm',
  wasmPath: wasm,
  modelBasePath: pathToFileURL(`${path.join(modules, '@vladmandic', 'human', 'models')}/`).href,
  debug: false,
  warmup: 'none',
  filter: off,
  gesture: off,
  body: off,
  hand: off,
  object: off,
  segmentation: off,
  face: { enabled: true, mesh: off, iris: off, description: off, emotion: { enabled: true } },
};
const whole = { ...config, cacheSensitivity: 0 }; // every frame by itself
const cached = { ...config, cacheSensitivity: 0.7 }; // human's default

const human = new Human(whole);
await human.init();
await human.load();
const file = fs.openSync(frames.path, 'r');
const size = frames.width * frames.height * 3;

/** Frame `number` as RGB bytes. */
function read(number) {
  const pixels = Buffer.allocUnsafe(size);
  fs.readSync(file, pixels, 0, size, number * size);
  return pixels;
}

/** The first face's box, xyxy px, or null. */
async function ask(pixels, settings) {
  const tensor = human.tf.tensor4d(pixels, [1, frames.height, frames.width, 3], 'float32');
  const { face, error } = await human.detect(tensor, settings);
  human.tf.dispose(tensor);
  if (error) throw new Error(error);
  if (!face.length) return null;
  if (!face[0].emotion?.length) return null;
  const [x, y, width, height] = face[0].box;
  return [x, y, x + width, y + height];
}

async function over(settings) {
  const seen = { seconds: [], boxes: [] };
  for (let number = 0; number < frames.faces.length; number += 1) {
    const pixels = read(number);
    const start = performance.now();
    seen.boxes.push(await ask(pixels, settings));
    seen.seconds.push((performance.now() - start) / 1000);
  }
  return seen;
}

await ask(read(0), whole);
const first = Date.now() / 1000 - started;
const alone = await over(whole);
const video = await over(cached);
const status = fs.readFileSync('/proc/self/status', 'utf8');
const peak = Number(status.match(/VmHWM:\s+(\d+)/)[1]) * 1024;
fs.writeFileSync(result, JSON.stringify({ first_answer_s: first, alone, video, peak_bytes: peak }));
