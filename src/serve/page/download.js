// Exports results as files.

const COLUMNS = ['file', 'kind', 'year', 'seconds', 'rank', 'genre', 'score', 'likely'];

/** Returns results as CSV: one row per file, year (or frame time) and genre. Overall scores have neither year nor time. */
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
  return rows.map((row) => `${row.map(csvCell).join(',')}\r\n`).join('');
}

/** Quotes a value if necessary. Text that a spreadsheet would evaluate as a formula is prefixed with an apostrophe. */
function csvCell(value) {
  let text = String(value);
  if (typeof value === 'string' && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Downloads `text` as a file. */
export function download(name, type, text) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement('a');
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
