// Builds the elements that show the prediction for a file: bars, table of years, heatmaps.

/** Maximum number of genres in bars and in the table of years. */
const TOP = 6;
/** Score from which heatmap cells use the other text color. At this score both colors have a contrast ratio of 4.5. */
const STRONG = 0.635;

/** Creates an element with properties, classes and children. Strings become text nodes, never markup. */
export function element(name, { class: classes, data = {}, style = {}, ...properties } = {}, ...children) {
  const created = Object.assign(document.createElement(name), properties);
  if (classes) created.className = classes;
  Object.assign(created.dataset, data);
  for (const [key, value] of Object.entries(style)) created.style.setProperty(key, value);
  created.append(...children.filter((child) => child !== null && child !== undefined));
  return created;
}

export const formatScore = (score) => score.toFixed(2);

/**
 * Returns a Map from label to threshold: of a year's model, or if `year` is null, of the model of all posters or else
 * the mean over the years.
 */
export function thresholds(model, year) {
  const toMap = (entry) => new Map(entry.thresholds.map(({ label, threshold }) => [label, threshold]));
  if (year !== null) return toMap(model.years.find((entry) => entry.year === year));
  if (model.overall) return toMap(model.overall);
  const sums = new Map();
  for (const { thresholds: list } of model.years) {
    for (const { label, threshold } of list) {
      const [sum, count] = sums.get(label) ?? [0, 0];
      sums.set(label, [sum + threshold, count + 1]);
    }
  }
  return new Map([...sums].map(([label, [sum, count]]) => [label, sum / count]));
}

/**
 * The genres with the highest scores as bars with a line at each threshold. `limits` is the result of `thresholds`; single-label
 * models have no thresholds (null).
 */
export function bars(genres, limits) {
  const items = genres.slice(0, TOP).map(({ label, score, likely }) => {
    const limit = limits.get(label);
    const title = limit === null ? `${label}: ${score.toFixed(4)}` : `${label}: ${score.toFixed(4)}, threshold ${limit.toFixed(2)}`;
    const line = limit === null ? null : element('b', { style: { '--threshold': limit } });
    const bar = element('div', { class: 'bar', style: { '--score': score } }, element('i'), line);
    bar.setAttribute('aria-hidden', 'true');
    return element('li', { class: likely ? 'likely' : '', title },
      element('span', { class: 'label' }, label),
      bar,
      element('span', { class: 'number' }, formatScore(score)),
      element('span', { class: 'limit' }, limit === null ? '' : `${likely ? '≥' : '<'} ${formatScore(limit)}`,
        element('span', { class: 'visually-hidden' }, likely ? ', likely' : ', not likely')));
  });
  return element('ul', { class: 'bars' }, ...items);
}

/** Explains the bars. `noun` is what the labels are: `genre` or `class`. */
export function legend(model, noun) {
  if (model.task === 'single-label') {
    return element('p', { class: 'hint legend' }, 'The scores of all classes add up to 1. The class with the highest score is bold.');
  }
  const clips = model.kind === 'run' ? 'clips' : 'posters';
  return element('p', { class: 'hint legend' }, element('b'),
    `Threshold of the ${noun}, tuned on validation ${clips} (0.50 if few of them have the ${noun}). A ${noun} whose score reaches it is likely, and bold.`);
}

/** A table with the likeliest genres of each year. */
export function yearTable(years) {
  const rows = years.map(({ year, genres }) => {
    const items = genres.slice(0, TOP).map(({ label, score, likely }) =>
      element('li', { class: likely ? 'likely' : '', title: `${label}: ${score.toFixed(4)}` },
        `${label} `, element('small', {}, formatScore(score))));
    return element('tr', {},
      element('th', { scope: 'row' }, String(year)),
      element('td', {}, element('ol', {}, ...items)));
  });
  return element('table', { class: 'years' },
    element('caption', {}, `The ${TOP} genres with the highest scores by each year’s model; bold if the score reaches the threshold of the genre.`),
    element('thead', { class: 'visually-hidden' }, element('tr', {},
      element('th', { scope: 'col' }, 'Year'), element('th', { scope: 'col' }, 'Genres'))),
    element('tbody', {}, ...rows));
}

/**
 * A table of genres × columns, colored by score. `columns` are `{title, genres}`; `corner` is the header of the labels.
 * The line below shows the score under the pointer. The cells contain the scores too, hidden by default except for
 * screen readers.
 */
export function heatmap(caption, corner, labels, columns) {
  const byLabel = columns.map(({ genres }) => new Map(genres.map((genre) => [genre.label, genre])));
  const head = columns.map(({ title }) => element('th', { scope: 'col', data: { column: title } }, title));
  const rows = labels.map((label) => {
    const cells = byLabel.map((genres, i) => {
      const genre = genres.get(label);
      if (!genre) return element('td', { class: 'unknown', data: { readout: `${label}, ${columns[i].title}: not a label of this model` } });
      const classes = [genre.likely ? 'likely' : '', genre.score >= STRONG ? 'strong' : ''].join(' ');
      const readout = `${label}, ${columns[i].title}: ${genre.score.toFixed(4)}${genre.likely ? ', likely' : ''}`;
      return element('td', { class: classes, title: readout, data: { readout }, style: { '--score': genre.score } },
        element('span', {}, formatScore(genre.score)));
    });
    return element('tr', {}, element('th', { scope: 'row' }, label), ...cells);
  });
  const table = element('table', { class: 'heatmap' },
    element('caption', { class: 'visually-hidden' }, caption),
    element('thead', {}, element('tr', {}, element('th', { scope: 'col' }, corner), ...head)),
    element('tbody', {}, ...rows));
  const readout = element('p', { class: 'readout' }, 'Point at a cell to see its score.');
  readout.setAttribute('aria-hidden', 'true');
  table.addEventListener('pointerover', ({ target }) => {
    const text = target.closest('td')?.dataset.readout;
    if (text) readout.textContent = text;
  });
  const scroll = element('div', { class: 'scroll', tabIndex: 0 }, table);
  scroll.setAttribute('role', 'group');
  scroll.setAttribute('aria-label', caption);
  const note = element('p', { class: 'note' }, `${caption} Stronger colors are higher scores; likely ones are framed.`);
  return element('div', {}, note, scroll, readout);
}

/** The thumbnail of a file. It removes itself if the browser cannot decode the file. */
export function thumbnail(file, url) {
  if (file.type.startsWith('video/')) {
    const video = element('video', { class: 'thumbnail', src: url, muted: true, preload: 'metadata', playsInline: true });
    video.setAttribute('aria-hidden', 'true');
    video.addEventListener('error', () => video.remove());
    return video;
  }
  const image = element('img', { class: 'thumbnail', src: url, alt: '' });
  image.addEventListener('error', () => image.remove());
  return image;
}

/** Formats seconds as m:ss. */
export function formatTime(seconds) {
  const rounded = Math.floor(seconds);
  return `${Math.floor(rounded / 60)}:${String(rounded % 60).padStart(2, '0')}`;
}
