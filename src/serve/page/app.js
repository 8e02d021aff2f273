// The page: takes files in, asks for predictions, shows them.

import { csv, download } from './download.js';
import { describe, predict, privacy } from './predict.js';
import { bars, clock, element, map, number, thresholds, thumbnail, years } from './view.js';

/** Requests at once. */
const AT_ONCE = 3;

const find = (id) => document.getElementById(id);
const status = (text) => { find('status').textContent = text; };

/** What is known of the models, once the server has said. */
let model = null;
/** Files shown, newest first: `{file, url, card, body, result, abort}`. */
let entries = [];
const waiting = [];
let running = 0;

/** The chosen year, or null for all. */
const chosenYear = () => (find('year').value === '' ? null : Number(find('year').value));

async function start() {
  find('privacy').textContent = privacy;
  let described;
  try {
    described = await describe();
  } catch (error) {
    status(error.message);
    return;
  }
  [model] = described.models;
  const notes = [model.untrained && 'untrained network: its genres say nothing', model.demo && 'trained on drawn demo posters'];
  const said = notes.filter(Boolean).join('; ');
  if (said) {
    find('badge').textContent = `${said[0].toUpperCase()}${said.slice(1)}`;
    find('badge').hidden = false;
  }
  const span = model.years.length ? `${model.years.length} years, ${model.years[0].year} to ${model.years.at(-1).year}` : 'one model for all years';
  find('model').textContent = `${model.labels.length} genres; ${span}; features of ${model.card} (${model.weights} weights), on ${model.provider}; kinoprobe ${model.version}.`;
  if (described.limits) {
    const { picture_megabytes: megabytes, seconds } = described.limits;
    const videos = seconds ? `, videos up to ${Number((seconds / 60).toFixed(1))} minutes` : '';
    find('limits').textContent = `Pictures up to ${megabytes} MB${videos}.`;
    find('videos').hidden = !seconds;
    find('files').accept = seconds ? 'image/*,video/*' : 'image/*';
  }
  find('year').append(element('option', { value: '' }, 'all'), ...model.years.map(({ year }) => element('option', { value: String(year) }, String(year))));
  find('year-field').hidden = model.years.length === 0;
  next();
}

/** Takes files in: a card each at once, predictions as they come. */
function take(files) {
  const added = [...files].map((file) => {
    const name = file.name || 'pasted picture';
    const url = URL.createObjectURL(file);
    const body = element('div', {}, element('p', { class: 'waiting' }, 'Looking at it…'));
    const remove = element('button', { type: 'button', class: 'quiet' }, 'Remove', element('span', { class: 'visually-hidden' }, ` ${name}`));
    const card = element('article', { class: 'card' },
      element('header', {}, element('h3', {}, name), remove),
      element('div', { class: 'top' }, element('div', {}, thumbnail(file, url)), body));
    const entry = { file, name, url, card, body, result: null, abort: new AbortController() };
    remove.addEventListener('click', () => { drop(entry); find('files').focus(); });
    return entry;
  });
  if (!added.length) return;
  entries = [...added, ...entries];
  find('cards').prepend(...added.map(({ card }) => card));
  find('results').hidden = false;
  waiting.push(...added);
  status(added.length === 1 ? `Looking at ${added[0].name}…` : `Looking at ${added.length} files…`);
  next();
}

function drop(entry) {
  entry.abort.abort();
  entry.card.remove();
  URL.revokeObjectURL(entry.url);
  entries = entries.filter((other) => other !== entry);
  find('results').hidden = entries.length === 0;
}

/** Begins the next requests, where there is room. */
function next() {
  while (model && running < AT_ONCE && waiting.length) {
    const entry = waiting.shift();
    if (entry.abort.signal.aborted) continue;
    running += 1;
    ask(entry).finally(() => { running -= 1; next(); });
  }
}

async function ask(entry) {
  try {
    const progress = (text) => entry.body.replaceChildren(element('p', { class: 'waiting' }, text));
    const { results: [result] } = await predict([entry.file], { signal: entry.abort.signal, progress });
    entry.result = result;
    show(entry);
    const likeliest = result.overall.slice(0, 3).map(({ label, score }) => `${label} ${number(score)}`).join(', ');
    status(`${entry.name}: ${likeliest}.${left()}`);
  } catch (error) {
    if (entry.abort.signal.aborted) return;
    entry.body.replaceChildren(element('p', { class: 'problem' }, error.message));
    status(`${error.message}${left()}`);
  }
}

function left() {
  const open = waiting.length + running - 1;
  return open > 0 ? ` ${open} to go.` : '';
}

/** Fills the card of an entry that has its result. */
function show(entry) {
  const { result, card, body } = entry;
  const heading = element('h4', { class: 'visually-hidden' }, 'Likeliest genres');
  body.replaceChildren(heading, chosenBars(result));
  const order = result.overall.map(({ label }) => label);
  const parts = [];
  if (result.years.length) {
    const columns = result.years.map(({ year, genres }) => ({ title: String(year), genres }));
    parts.push(element('h4', {}, 'Year by year'), map('Genres by year.', 'Genre', order, columns), years(result.years));
  }
  if (result.frames) {
    const columns = result.frames.map(({ seconds, genres }) => ({ title: clock(seconds), genres }));
    parts.unshift(element('h4', {}, 'Over time'), map('Genres by minute and second.', 'Genre', order, columns));
  }
  card.querySelector('.details')?.remove();
  card.append(element('div', { class: 'details' }, ...parts));
  markYear(card);
}

/** The bars of the chosen year. */
function chosenBars(result) {
  const year = chosenYear();
  const genres = year === null ? result.overall : result.years.find((entry) => entry.year === year).genres;
  return bars(genres, thresholds(model, year));
}

function markYear(root) {
  for (const head of root.querySelectorAll('.map th[data-column]')) {
    head.classList.toggle('chosen', head.dataset.column === find('year').value);
  }
}

find('files').addEventListener('change', ({ target }) => { take(target.files); target.value = ''; });
find('year').addEventListener('change', () => {
  for (const { result, body } of entries) if (result) body.querySelector('.bars').replaceWith(chosenBars(result));
  markYear(document);
  status(chosenYear() === null ? 'Bars of all years.' : `Bars of ${chosenYear()}.`);
});
find('numbers').addEventListener('change', ({ target }) => find('cards').classList.toggle('numbers', target.checked));
find('clear').addEventListener('click', () => {
  [...entries].forEach(drop);
  status('Cleared.');
  find('files').focus();
});
const results = () => [...entries].reverse().map(({ result }) => result).filter(Boolean);
find('csv').addEventListener('click', () => download('genres.csv', 'text/csv', csv(results())));
find('json').addEventListener('click', () => {
  const text = JSON.stringify({ results: results(), model }, null, 2);
  download('genres.json', 'application/json', text);
});

// Files may be dropped anywhere on the page.
let depth = 0;
const over = (by) => {
  depth = Math.max(0, by === 0 ? 0 : depth + by);
  find('drop').classList.toggle('over', depth > 0);
};
addEventListener('dragenter', (event) => { event.preventDefault(); over(1); });
addEventListener('dragleave', () => over(-1));
addEventListener('dragover', (event) => event.preventDefault());
addEventListener('drop', (event) => {
  event.preventDefault();
  over(0);
  take(event.dataTransfer.files);
});
addEventListener('paste', ({ clipboardData }) => take(clipboardData.files));

start();
