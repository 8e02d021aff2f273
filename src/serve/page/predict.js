// Gets predictions from the server. The page uses only `describe`, `predict` and `privacy`: the exported site replaces
// this module with one that runs the models in the browser.

/** The privacy notice of the page. */
export const privacy = 'Files are sent to this server, processed in memory, and not stored.';

/** Returns the models and their limits: the response of `GET api/models`. */
export async function describe() {
  return parseResponse(await fetch('api/models'));
}

/**
 * Predicts the genres of images and videos. Returns the response of `POST api/predict`: `{results, model}`.
 * A busy server is retried three times. This module ignores the option `progress`, a callback for status messages.
 * Throws an Error whose message can be shown to users.
 */
export async function predict(files, { signal } = {}) {
  for (let attempt = 0; ; attempt += 1) {
    const body = new FormData();
    for (const file of files) body.append('file', file, file.name || 'pasted');
    let response;
    try {
      response = await fetch('api/predict', { method: 'POST', body, signal });
    } catch (error) {
      if (error.name === 'AbortError') throw error;
      throw new Error('The server cannot be reached.');
    }
    if (response.status !== 503 || attempt === 3) return parseResponse(response);
    const seconds = Number(response.headers.get('Retry-After')) || 1;
    await new Promise((resolve) => { setTimeout(resolve, seconds * 1000 * (attempt + 1)); });
  }
}

async function parseResponse(response) {
  let value;
  try {
    value = await response.json();
  } catch {
    throw new Error(`The server sent an invalid response (status ${response.status}).`);
  }
  if (!response.ok) throw new Error(formatMessage(value.error));
  return value;
}

/** Adds a capital and a period to a message of the API. Messages that start with a file name keep their case. */
function formatMessage(message = 'the request failed') {
  const text = /^(the|send|no|too|method|internal) /.test(message) ? `${message[0].toUpperCase()}${message.slice(1)}` : message;
  return `${text}.`;
}
