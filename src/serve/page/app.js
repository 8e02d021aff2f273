// The page: accepts files, requests predictions and shows them.

import { csv, download } from './download.js';
import { describe, predict, privacy } from './predict.js';
import { bars, element, formatScore, formatTime, heatmap, legend, thresholds, thumbnail, yearTable } from './view.js';

/** Maximum number of concurrent requests. */
const MAX_REQUESTS = 3;

const byId = (id) => document.getElementById(id);
const setStatus = (text) => { byId('status').textContent = text; };

/** Description of the models, or null while it loads. */
let model = null;
/** What the labels are: genres of posters, or the classes of a run. */
let noun = { one: 'genre', many: 'genres' };
/** Files on the page, newest first: `{file, name, url, card, body, result, abort}`. */
let entries = [];
/** Entries whose request has not started. */
const queue = [];
/** Number of requests in progress. */
let running = 0;

/** The selected year, or null for all years. */
const selectedYear = () => (byId('year').value === '' ? null : Number(byId('year').value));

async function start() {
  byId('privacy').textContent = privacy;
  let description;
  try {
    description = await describe();
  } catch (error) {
    setStatus(error.message);
    return;
  }
  [model] = description.models;
  if (model.kind === 'run') describeRun();
  const warnings = [model.untrained && `untrained network: the ${noun.many} are meaningless`, model.demo && 'trained on generated demo posters'];
  const warning = warnings.filter(Boolean).join('; ');
  if (warning) {
    byId('badge').textContent = `${warning[0].toUpperCase()}${warning.slice(1)}`;
    byId('badge').hidden = false;
  }
  const span = model.years.length ? `${model.years.length} years, ${model.years[0].year} to ${model.years.at(-1).year}; ` : '';
  byId('by-year').hidden = model.years.length === 0;
  byId('model').textContent = `${model.labels.length} ${noun.many}; ${span}features of ${model.card} (${model.weights} weights) on ${model.provider}; kinoprobe ${model.version}.`;
  if (description.limits) {
    const { image_megabytes: megabytes, seconds } = description.limits;
    const videos = seconds ? `, videos up to ${Number((seconds / 60).toFixed(1))} minutes` : '';
    byId('limits').textContent = `Images up to ${megabytes} MB${videos}.`;
    byId('videos').hidden = !seconds;
    byId('files').accept = seconds ? 'image/*,video/*' : 'image/*';
  }
  byId('year').append(element('option', { value: '' }, 'all'), ...model.years.map(({ year }) => element('option', { value: String(year) }, String(year))));
  byId('year-field').hidden = model.years.length === 0;
  startRequests();
}

/** Replaces the texts of posters by those of a run. */
function describeRun() {
  noun = { one: 'class', many: 'classes' };
  document.title = 'Classes of images · kinoprobe';
  document.querySelector('h1').textContent = 'Classes of images';
  byId('lead').textContent = 'Upload an image to see its predicted classes';
  byId('drop-title').textContent = 'Drop images here';
}

/** Adds a card for each file and queues its request. */
function addFiles(files) {
  const added = [...files].map((file) => {
    const name = file.name || 'pasted image';
    const url = URL.createObjectURL(file);
    const body = element('div', {}, element('p', { class: 'pending' }, 'Processing…'));
    const remove = element('button', { type: 'button', class: 'quiet' }, 'Remove', element('span', { class: 'visually-hidden' }, ` ${name}`));
    const card = element('article', { class: 'card' },
      element('header', {}, element('h3', {}, name), remove),
      element('div', { class: 'top' }, element('div', {}, thumbnail(file, url)), body));
    const entry = { file, name, url, card, body, result: null, abort: new AbortController() };
    remove.addEventListener('click', () => { removeEntry(entry); byId('files').focus(); });
    return entry;
  });
  if (!added.length) return;
  entries = [...added, ...entries];
  byId('cards').prepend(...added.map(({ card }) => card));
  byId('results').hidden = false;
  queue.push(...added);
  setStatus(added.length === 1 ? `Processing ${added[0].name}…` : `Processing ${added.length} files…`);
  startRequests();
}

function removeEntry(entry) {
  entry.abort.abort();
  entry.card.remove();
  URL.revokeObjectURL(entry.url);
  entries = entries.filter((other) => other !== entry);
  byId('results').hidden = entries.length === 0;
}

/** Starts queued requests up to the limit. */
function startRequests() {
  while (model && running < MAX_REQUESTS && queue.length) {
    const entry = queue.shift();
    if (entry.abort.signal.aborted) continue;
    running += 1;
    request(entry).finally(() => { running -= 1; startRequests(); });
  }
}

async function request(entry) {
  try {
    const progress = (text) => entry.body.replaceChildren(element('p', { class: 'pending' }, text));
    const { results: [result] } = await predict([entry.file], { signal: entry.abort.signal, progress });
    entry.result = result;
    showResult(entry);
    const top = result.overall.slice(0, 3).map(({ label, score }) => `${label} ${formatScore(score)}`).join(', ');
    setStatus(`${entry.name}: ${top}.${remaining()}`);
  } catch (error) {
    if (entry.abort.signal.aborted) return;
    entry.body.replaceChildren(element('p', { class: 'error' }, error.message));
    setStatus(`${error.message}${remaining()}`);
  }
}

const capitalized = (text) => `${text[0].toUpperCase()}${text.slice(1)}`;

function remaining() {
  const count = queue.length + running - 1;
  return count > 0 ? ` ${count} remaining.` : '';
}

/** Shows the result of an entry in its card. */
function showResult(entry) {
  const { result, card, body } = entry;
  const heading = element('h4', { class: 'visually-hidden' }, `${capitalized(noun.many)} with the highest scores`);
  body.replaceChildren(heading, selectedBars(result), legend(model, noun.one));
  const labels = result.overall.map(({ label }) => label);
  const parts = [];
  if (result.years.length) {
    const columns = result.years.map(({ year, genres }) => ({ title: String(year), genres }));
    parts.push(element('h4', {}, 'Year by year'), heatmap('Genres by year.', 'Genre', labels, columns), yearTable(result.years));
  }
  if (result.frames) {
    const columns = result.frames.map(({ seconds, genres }) => ({ title: formatTime(seconds), genres }));
    parts.unshift(element('h4', {}, 'Over time'), heatmap(`${capitalized(noun.many)} by time (minutes and seconds).`, capitalized(noun.one), labels, columns));
  }
  card.querySelector('.details')?.remove();
  card.append(element('div', { class: 'details' }, ...parts));
  highlightYear(card);
}

/** The bars of the selected year. */
function selectedBars(result) {
  const year = selectedYear();
  const genres = year === null ? result.overall : result.years.find((entry) => entry.year === year).genres;
  return bars(genres, thresholds(model, year));
}

function highlightYear(root) {
  for (const head of root.querySelectorAll('.heatmap th[data-column]')) {
    head.classList.toggle('selected', head.dataset.column === byId('year').value);
  }
}

byId('files').addEventListener('change', ({ target }) => { addFiles(target.files); target.value = ''; });
byId('year').addEventListener('change', () => {
  for (const { result, body } of entries) if (result) body.querySelector('.bars').replaceWith(selectedBars(result));
  highlightYear(document);
  setStatus(selectedYear() === null ? 'Showing all years.' : `Showing ${selectedYear()}.`);
});
byId('numbers').addEventListener('change', ({ target }) => byId('cards').classList.toggle('numbers', target.checked));
byId('clear').addEventListener('click', () => {
  [...entries].forEach(removeEntry);
  setStatus('Cleared.');
  byId('files').focus();
});
/** All results, in the order in which the files were added. */
const results = () => [...entries].reverse().map(({ result }) => result).filter(Boolean);
byId('csv').addEventListener('click', () => download(`${noun.many}.csv`, 'text/csv', csv(results())));
byId('json').addEventListener('click', () => {
  const text = JSON.stringify({ results: results(), model }, null, 2);
  download(`${noun.many}.json`, 'application/json', text);
});

// Files can be dropped anywhere on the page. dragenter and dragleave also fire for child elements, so their depth is
// counted.
let dragDepth = 0;
const setDragDepth = (depth) => {
  dragDepth = Math.max(0, depth);
  byId('drop').classList.toggle('over', dragDepth > 0);
};
addEventListener('dragenter', (event) => { event.preventDefault(); setDragDepth(dragDepth + 1); });
addEventListener('dragleave', () => setDragDepth(dragDepth - 1));
addEventListener('dragover', (event) => event.preventDefault());
addEventListener('drop', (event) => {
  event.preventDefault();
  setDragDepth(0);
  addFiles(event.dataTransfer.files);
});
addEventListener('paste', ({ clipboardData }) => addFiles(clipboardData.files));

start();
