// Gets predictions from models that run in the browser. The exported site contains this module instead of the page's
// predict.js, which sends files to the server.

import { predictionForImage } from './prediction.js';

/** The privacy notice of the page. */
export const privacy = 'Files never leave this device: the models run in your browser.';

/** Content of `models.json`. */
let description = null;
let worker = null;
/** The error that made the worker unusable, if any. */
let workerError = null;
let lastId = 0;
/** Requests in the worker by ID: `{resolve, reject, progress}`. */
const requests = new Map();

/** Returns the models and their limits, and starts the worker. */
export async function describe() {
  const response = await fetch('models.json').catch(() => ({ ok: false }));
  if (!response.ok) throw new Error('The models cannot be loaded: models.json is missing next to this page.');
  description = await response.json();
  worker = new Worker(new URL('worker.js', import.meta.url), { type: 'module' });
  worker.addEventListener('message', ({ data }) => handleMessage(data));
  worker.addEventListener('error', () => {
    workerError = new Error('The networks cannot run in this browser: try a newer one.');
    for (const { reject } of requests.values()) reject(workerError);
    requests.clear();
  });
  return description;
}

/**
 * Predicts the genres of images. Returns `{results, model}`, like the server. `progress` is called with status
 * messages. Throws an Error whose message can be shown to users.
 */
export async function predict(files, { signal, progress } = {}) {
  const [model] = description.models;
  const results = await Promise.all([...files].map(async (file) => {
    const name = file.name || 'pasted image';
    return predictionForImage(model, name, await requestScores(file, name, signal, progress));
  }));
  return { results, model };
}

async function requestScores(file, name, signal, progress) {
  if (workerError) throw workerError;
  lastId += 1;
  const id = lastId;
  return new Promise((resolve, reject) => {
    requests.set(id, { resolve, reject, progress });
    signal?.addEventListener('abort', () => {
      requests.delete(id);
      worker.postMessage({ cancel: id });
      reject(signal.reason);
    });
    worker.postMessage({ id, file, name });
  });
}

function handleMessage({ id, loaded, scores, error }) {
  if (loaded) {
    const [done, total] = loaded.map((bytes) => Math.round(bytes / 1e6));
    const text = loaded[0] < loaded[1] ? `Loading the networks (once): ${done} of ${total} MB…` : 'Processing…';
    for (const { progress } of requests.values()) progress?.(text);
    return;
  }
  const request = requests.get(id);
  requests.delete(id);
  if (error) request?.reject(new Error(error));
  else request?.resolve(scores);
}
