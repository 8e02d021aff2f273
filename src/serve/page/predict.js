// Where scores come from. The page knows only `describe` and `predict`: another module with the same two functions can
// compute them elsewhere, in the browser for one.

/** What the page says of where files go. */
export const privacy = 'Files are sent to this server, looked at in memory, and not kept.';

/** The models and their limits, as `GET api/models` answers. */
export async function describe() {
  return answer(await fetch('api/models'));
}

/**
 * Predicts the genres of files (pictures or videos), as `POST api/predict` answers: `{results, model}`.
 * Another module may say through `progress`, in words, what a file waits for.
 * Throws an Error whose message is a sentence for people. A busy server is asked again, three times.
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
    if (response.status !== 503 || attempt === 3) return answer(response);
    const seconds = Number(response.headers.get('Retry-After')) || 1;
    await new Promise((resolve) => { setTimeout(resolve, seconds * 1000 * (attempt + 1)); });
  }
}

async function answer(response) {
  let value;
  try {
    value = await response.json();
  } catch {
    throw new Error(`The server answered ${response.status}, and nothing that can be read.`);
  }
  if (!response.ok) throw new Error(sentence(value.error));
  return value;
}

/** A sentence of the API with a capital and a full stop. File names keep their case. */
function sentence(text = 'the server refused') {
  return /^(the|send|at|nothing|there|this) /.test(text) ? `${text[0].toUpperCase()}${text.slice(1)}.` : `${text}.`;
}
