// Where scores come from on the exported page: the models run in the browser. Takes the place of the page's own predict.js,
// which asks the server.

import { ofPicture } from './answer.js';

/** What the page says of where files go. */
export const privacy = 'Files never leave this device: the models run in your browser.';

/** What is known of the models, from `models.json`. */
let described = null;
let worker = null;
/** Why the worker does not work, where it does not. */
let broken = null;
let count = 0;
/** Files in the worker by number: `{resolve, reject, progress}`. */
const open = new Map();

/** The models and their limits. */
export async function describe() {
  const response = await fetch('models.json').catch(() => ({ ok: false }));
  if (!response.ok) throw new Error('The models cannot be loaded: models.json is missing beside this page.');
  described = await response.json();
  worker = new Worker(new URL('worker.js', import.meta.url), { type: 'module' });
  worker.addEventListener('message', ({ data }) => heard(data));
  worker.addEventListener('error', () => {
    broken = new Error('The networks cannot run in this browser: try a newer one.');
    for (const { reject } of open.values()) reject(broken);
    open.clear();
  });
  return described;
}

/**
 * Predicts the genres of pictures: `{results, model}`, as the server answers. `progress` is told, in words, what a file waits for.
 * Throws an Error whose message is a sentence for people.
 */
export async function predict(files, { signal, progress } = {}) {
  const [model] = described.models;
  const results = await Promise.all([...files].map(async (file) => {
    const name = file.name || 'pasted picture';
    return ofPicture(model, name, await scores(file, name, signal, progress));
  }));
  return { results, model };
}

async function scores(file, name, signal, progress) {
  if (broken) throw broken;
  count += 1;
  const id = count;
  return new Promise((resolve, reject) => {
    open.set(id, { resolve, reject, progress });
    signal?.addEventListener('abort', () => {
      open.delete(id);
      worker.postMessage({ drop: id });
      reject(signal.reason);
    });
    worker.postMessage({ id, file, name });
  });
}

function heard({ id, loaded, scores: list, problem }) {
  if (loaded) {
    const [done, of] = loaded.map((bytes) => Math.round(bytes / 1e6));
    const text = loaded[0] < loaded[1] ? `Loading the networks, once: ${done} of ${of} MB…` : 'Looking at it…';
    for (const { progress } of open.values()) progress?.(text);
    return;
  }
  const asked = open.get(id);
  open.delete(id);
  if (problem) asked?.reject(new Error(problem));
  else asked?.resolve(list);
}
