// Web worker that runs the networks. Receives `{id, file, name}` and `{cancel: id}`. Sends `{loaded: [bytes, total]}`
// while the networks load, then for each file `{id, scores}` (one array per head) or `{id, error}`.

import * as ort from './onnxruntime/ort.js';
import { decode } from './image.js';
import { transform } from './transform.js';

const siteUrl = (file) => new URL(file, import.meta.url).href;
// Threads need cross-origin isolation headers, which most static hosts do not send.
ort.env.wasm.numThreads = 1;
ort.env.wasm.wasmPaths = { mjs: siteUrl('onnxruntime/ort-wasm.js'), wasm: siteUrl('onnxruntime/ort-wasm.wasm') };

/** Promise of the loaded networks. */
let networks = null;
const cancelled = new Set();
/** Completion of the previous file: the network runs one file at a time. */
let previous = Promise.resolve();

addEventListener('message', ({ data }) => {
  if (data.cancel !== undefined) {
    cancelled.add(data.cancel);
    return;
  }
  previous = previous.then(async () => {
    if (cancelled.delete(data.id)) return;
    try {
      postMessage({ id: data.id, scores: await score(data) });
    } catch (error) {
      postMessage({ id: data.id, error: error.message });
    }
  });
});

/** Returns the scores of each head for an image. */
async function score({ file, name }) {
  const { limits, network, backbone, heads } = await getNetworks();
  const image = await decode(file, name, limits);
  const planes = transform(network.input, image);
  image.close();
  const item = new ort.Tensor('float32', planes, [1, 3, ...network.input.size]);
  const { [network.output]: features } = await backbone.run({ [network.input.name]: item });
  const scores = [];
  for (const head of heads) scores.push([...(await head.run({ features })).probabilities.data]);
  return scores;
}

/** Loads the networks on the first call, and again after a failure. */
function getNetworks() {
  networks ??= load().catch((error) => {
    networks = null;
    throw error;
  });
  return networks;
}

async function load() {
  const { limits, network, heads } = await (await get('models.json')).json();
  const total = [network, ...heads].reduce((sum, { bytes }) => sum + bytes, 0);
  let loaded = 0;
  const createSession = async ({ file, bytes }) => {
    const model = await download(file, bytes, (count) => postMessage({ loaded: [loaded += count, total] }));
    return ort.InferenceSession.create(model, { executionProviders: ['wasm'] }).catch((error) => {
      throw new Error(`The networks cannot run in this browser: ${error.message}`);
    });
  };
  const backbone = await createSession(network);
  const sessions = [];
  for (const head of heads) sessions.push(await createSession(head));
  return { limits, network, backbone, heads: sessions };
}

/** Downloads a file of the site and checks its length. `progress` is called with the length of each chunk. */
async function download(file, bytes, progress) {
  const content = new Uint8Array(bytes);
  const reader = (await get(file)).body.getReader();
  let offset = 0;
  for (let chunk = await reader.read(); !chunk.done && offset + chunk.value.length <= bytes; chunk = await reader.read()) {
    content.set(chunk.value, offset);
    offset += chunk.value.length;
    progress(chunk.value.length);
  }
  if (offset !== bytes) throw new Error(`${file} has an unexpected length: reload the page.`);
  return content;
}

async function get(file) {
  let response;
  try {
    response = await fetch(siteUrl(file));
  } catch {
    throw new Error(`${file} cannot be loaded: check the network connection.`);
  }
  if (!response.ok) throw new Error(`${file} cannot be loaded: the host sent status ${response.status}.`);
  return response;
}

getNetworks().catch(() => {}); // start loading before the first file; a failure is reported with that file
