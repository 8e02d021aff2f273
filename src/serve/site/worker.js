// The networks, off the page's thread. Takes `{id, file, name}` and `{drop: id}`; answers `{loaded: [bytes, of]}` while the
// networks come, then for each file `{id, scores}` (a list for each head) or `{id, problem}`.

import * as ort from './onnxruntime/ort.js';
import { decode } from './picture.js';
import { transform } from './transform.js';

const here = (file) => new URL(file, import.meta.url).href;
// One thread: several would need headers that few static hosts send.
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = { mjs: here('onnxruntime/ort-wasm.js'), wasm: here('onnxruntime/ort-wasm.wasm') };

let asked = null;
const dropped = new Set();
/** Files one after another: the network runs one at a time. */
let last = Promise.resolve();

addEventListener('message', ({ data }) => {
  if (data.drop !== undefined) {
    dropped.add(data.drop);
    return;
  }
  last = last.then(async () => {
    if (dropped.delete(data.id)) return;
    try {
      postMessage({ id: data.id, scores: await scores(data) });
    } catch (error) {
      postMessage({ id: data.id, problem: error.message });
    }
  });
});

/** For each head its scores of a picture. */
async function scores({ file, name }) {
  const { limits, network, backbone, heads } = await networks();
  const picture = await decode(file, name, limits);
  const planes = transform(network.input, picture);
  picture.close();
  const item = new ort.Tensor('float32', planes, [1, 3, ...network.input.size]);
  const { [network.output]: features } = await backbone.run({ [network.input.name]: item });
  const all = [];
  for (const head of heads) all.push([...(await head.run({ features })).probabilities.data]);
  return all;
}

/** The networks: loaded once, and asked for again after a failure. */
function networks() {
  asked ??= load().catch((error) => {
    asked = null;
    throw error;
  });
  return asked;
}

async function load() {
  const { limits, network, heads } = await (await get('models.json')).json();
  const total = [network, ...heads].reduce((sum, { bytes }) => sum + bytes, 0);
  let loaded = 0;
  const session = async ({ file, bytes }) => {
    const model = await whole(file, bytes, (count) => postMessage({ loaded: [loaded += count, total] }));
    return ort.InferenceSession.create(model, { executionProviders: ['wasm'] }).catch((error) => {
      throw new Error(`The networks cannot run in this browser: ${error.message}`);
    });
  };
  const backbone = await session(network);
  const sessions = [];
  for (const head of heads) sessions.push(await session(head));
  return { limits, network, backbone, heads: sessions };
}

/** A file of the site, which has so many bytes. */
async function whole(file, bytes, progress) {
  const content = new Uint8Array(bytes);
  const reader = (await get(file)).body.getReader();
  let at = 0;
  for (let part = await reader.read(); !part.done && at + part.value.length <= bytes; part = await reader.read()) {
    content.set(part.value, at);
    at += part.value.length;
    progress(part.value.length);
  }
  if (at !== bytes) throw new Error(`${file} did not come as it was exported: load the page again.`);
  return content;
}

async function get(file) {
  let response;
  try {
    response = await fetch(here(file));
  } catch {
    throw new Error(`${file} cannot be loaded: is the network there?`);
  }
  if (!response.ok) throw new Error(`${file} cannot be loaded: the host answered ${response.status}.`);
  return response;
}

networks().catch(() => {}); // begun before the first file; a failure is told with it
