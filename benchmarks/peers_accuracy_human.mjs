// @vladmandic/human's emotion network on faces of 48 px, for peers_accuracy.py:
//   node peers_accuracy_human.mjs FOLDER PIXELS SCORES
//
// PIXELS holds grey faces as bytes, SCORES gets seven float32 for each. The network is fed as human's source feeds it
// (src/gear/emotion.ts): bilinear to its input's side, its own grey weights, -1 to 1.

import fs from 'node:fs';
import path from 'node:path';
import { createRequire } from 'node:module';
import { fileURLToPath, pathToFileURL } from 'node:url';

const [folder, pixels, scores] = process.argv.slice(2);
const SIDE = 48;

globalThis.fetch = async (address) => new Response(fs.readFileSync(fileURLToPath(String(address))), { status: 200 });

const modules = path.join(folder, 'node_modules');
const load = createRequire(path.join(modules, 'index.js'));
const wasm = `${path.join(modules, '@tensorflow', 'tfjs-backend-wasm', 'dist')}/`;
load('@tensorflow/tfjs-backend-wasm').setWasmPaths(wasm);
const { Human } = load(path.join(modules, '@vladmandic', 'human', 'dist', 'human.node-wasm.js'));
const human = new Human({ backend: 'wasm', wasmPath: wasm, debug: false, warmup: 'none' });
await human.init();
const { tf } = human;
const place = path.join(modules, '@vladmandic', 'human', 'models', 'emotion.json');
const network = await tf.loadGraphModel(pathToFileURL(place).href);
const side = network.inputs[0].shape[2];
const weights = tf.tensor1d([0.2989, 0.587, 0.114]);

const bytes = fs.readFileSync(pixels);
const count = bytes.length / SIDE ** 2;
const found = new Float32Array(count * 7);
for (let row = 0; row < count; row += 1) {
  const answer = tf.tidy(() => {
    const grey = tf.tensor4d(bytes.subarray(row * SIDE ** 2, (row + 1) * SIDE ** 2), [1, SIDE, SIDE, 1], 'float32');
    const rgb = tf.div(tf.concat([grey, grey, grey], 3), 255);
    const resized = tf.image.resizeBilinear(rgb, [side, side], false);
    const seen = tf.mul(tf.sub(tf.sum(tf.mul(resized, weights), 3, true), 0.5), 2);
    return network.execute(seen);
  });
  found.set(await answer.data(), row * 7);
  tf.dispose(answer);
}
fs.writeFileSync(scores, Buffer.from(found.buffer));
