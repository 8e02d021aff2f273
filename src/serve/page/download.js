// Results as files.

const COLUMNS = ['file', 'kind', 'year', 'seconds', 'rank', 'genre', 'score', 'likely'];

/** Comma-separated values: a row for each file, year (or second) and genre; the overall scores have neither. */
export function csv(results) {
  const rows = [COLUMNS];
  for (const { name, kind, overall, years, frames = [] } of results) {
    const add = (year, seconds, genres) => genres.forEach(({ label, score, likely }, i) => {
      rows.push([name, kind, year, seconds, i + 1, label, score, likely]);
    });
    add('', '', overall);
    for (const { year, genres } of years) add(year, '', genres);
    for (const { seconds, genres } of frames) add('', seconds, genres);
  }
  return rows.map((row) => `${row.map(cell).join(',')}\r\n`).join('');
}

/** Quoted where it must be; what a spreadsheet would run as a formula gets an apostrophe. */
function cell(value) {
  let text = String(value);
  if (typeof value === 'string' && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Offers `text` as the file `name`. */
export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
