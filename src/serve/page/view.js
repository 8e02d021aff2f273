// What is shown of one file: bars, a row a year, maps.

/** Genres shown where not all are. */
const TOP = 6;
/** Score from which a cell of a map has the other color of writing: there both have a contrast of 4.5. */
const STRONG = 0.635;

/** An element with properties, classes and children; text is never taken for markup. */
export function element(name, { class: classes, data = {}, style = {}, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  if (classes) made.className = classes;
  Object.assign(made.dataset, data);
  for (const [key, value] of Object.entries(style)) made.style.setProperty(key, value);
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

export const number = (score) => score.toFixed(2);

/** Threshold by label: of a year's model, or (year null) of the model of all posters, or the mean over the years. */
export function thresholds(model, year) {
  const listed = (entry) => new Map(entry.thresholds.map(({ label, threshold }) => [label, threshold]));
  if (year !== null) return listed(model.years.find((entry) => entry.year === year));
  if (model.overall) return listed(model.overall);
  const sums = new Map();
  for (const { thresholds: list } of model.years) {
    for (const { label, threshold } of list) {
      const [sum, count] = sums.get(label) ?? [0, 0];
      sums.set(label, [sum + threshold, count + 1]);
    }
  }
  return new Map([...sums].map(([label, [sum, count]]) => [label, sum / count]));
}

/** The likeliest genres as bars, with a line at each threshold. */
export function bars(genres, limits) {
  const items = genres.slice(0, TOP).map(({ label, score, likely }) => {
    const limit = limits.get(label);
    const title = `${label}: ${score.toFixed(4)}, threshold ${limit.toFixed(2)}`;
    const line = element('b', { style: { '--threshold': limit } });
    const bar = element('div', { class: 'bar', style: { '--score': score } }, element('i'), line);
    bar.setAttribute('aria-hidden', 'true');
    return element('li', { class: likely ? 'likely' : '', title },
      element('span', { class: 'label' }, label),
      bar,
      element('span', { class: 'number' }, number(score),
        element('span', { class: 'visually-hidden' }, likely ? ', likely' : '')));
  });
  return element('ul', { class: 'bars' }, ...items);
}

/** A row for every year: its likeliest genres. */
export function years(list) {
  const rows = list.map(({ year, genres }) => {
    const items = genres.slice(0, TOP).map(({ label, score, likely }) =>
      element('li', { class: likely ? 'likely' : '', title: `${label}: ${score.toFixed(4)}` },
        `${label} `, element('small', {}, number(score))));
    return element('tr', {},
      element('th', { scope: 'row' }, String(year)),
      element('td', {}, element('ol', {}, ...items)));
  });
  return element('table', { class: 'years' },
    element('caption', {}, `The ${TOP} likeliest genres of each year’s model; bold where the score reaches its threshold.`),
    element('thead', { class: 'visually-hidden' }, element('tr', {},
      element('th', { scope: 'col' }, 'Year'), element('th', { scope: 'col' }, 'Genres'))),
    element('tbody', {}, ...rows));
}

/**
 * Genres × columns as a colored table. `columns` are `{title, genres}`; `name` says what the map shows. A line below
 * tells the cell under the pointer; the numbers stand in the cells, visible on demand and always for screen readers.
 */
export function map(name, corner, labels, columns) {
  const told = columns.map(({ genres }) => new Map(genres.map((genre) => [genre.label, genre])));
  const head = columns.map(({ title }) => element('th', { scope: 'col', data: { column: title } }, title));
  const rows = labels.map((label) => {
    const cells = told.map((genres, i) => {
      const genre = genres.get(label);
      if (!genre) return element('td', { class: 'unknown', data: { says: `${label}, ${columns[i].title}: not known to this model` } });
      const classes = [genre.likely ? 'likely' : '', genre.score >= STRONG ? 'strong' : ''].join(' ');
      const says = `${label}, ${columns[i].title}: ${genre.score.toFixed(4)}${genre.likely ? ', likely' : ''}`;
      return element('td', { class: classes, title: says, data: { says }, style: { '--score': genre.score } },
        element('span', {}, number(genre.score)));
    });
    return element('tr', {}, element('th', { scope: 'row' }, label), ...cells);
  });
  const table = element('table', { class: 'map' },
    element('caption', { class: 'visually-hidden' }, name),
    element('thead', {}, element('tr', {}, element('th', { scope: 'col' }, corner), ...head)),
    element('tbody', {}, ...rows));
  const readout = element('p', { class: 'readout' }, 'Point at a cell for its score.');
  readout.setAttribute('aria-hidden', 'true');
  table.addEventListener('pointerover', ({ target }) => {
    const says = target.closest('td')?.dataset.says;
    if (says) readout.textContent = says;
  });
  const scroll = element('div', { class: 'scroll', tabIndex: 0 }, table);
  scroll.setAttribute('role', 'group');
  scroll.setAttribute('aria-label', name);
  const note = element('p', { class: 'note' }, `${name} Stronger color is a higher score; framed cells reach the threshold.`);
  return element('div', {}, note, scroll, readout);
}

/** The thumbnail of a file, or nothing where the browser cannot show it. */
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

/** Seconds as m:ss. */
export function clock(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}`;
}
