// A small set of poster models, made on the fly: posters drawn by the browser, features of the real network, a model a year
// and one for all.

import { execFile } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

const YEARS = [1994, 2004, 2014];
const A_YEAR = 16;
/** Genre: hue, shape and words for titles. */
const GENRES = {
  Action: [18, 'polygon(0 100%, 50% 0, 100% 100%)', 'Last Strike'],
  Comedy: [50, 'circle(50%)', 'Wrong Wedding'],
  Drama: [28, 'inset(0 35%)', 'The Long Winter'],
  Horror: [0, 'polygon(50% 0, 61% 100%, 39% 100%)', 'It Waits'],
  Romance: [335, 'ellipse(50% 34%)', 'Letters in May'],
  'Science Fiction': [205, 'circle(28%)', 'Orbit Nine'],
  Thriller: [230, 'inset(45% 0)', 'No Witness'],
  Western: [38, 'polygon(0 100%, 20% 40%, 45% 70%, 70% 20%, 100% 100%)', 'Dust Road'],
};
const NAMES = Object.keys(GENRES);

/** The page of a poster of one or two genres. */
function drawing(genres, year, seed) {
  const [hue, shape, title] = GENRES[genres[0]];
  const [other, second] = GENRES[genres.at(-1)];
  const [light, font] = { 1994: [30, 'serif'], 2004: [45, 'sans-serif'], 2014: [70, 'monospace'] }[year];
  const turn = (seed * 37) % 50 - 25;
  return `<!doctype html><style>
    body { margin: 0; height: 600px; overflow: hidden; position: relative; font-family: ${font}; color: ${light > 60 ? '#111' : '#fff'};
           background: linear-gradient(${160 + turn}deg, hsl(${hue + turn / 3} 75% ${light}%), hsl(${other} 60% ${light / 2}%)); }
    i { position: absolute; left: ${60 + turn}px; top: 130px; width: 280px; height: 280px; }
    h1 { position: absolute; bottom: 60px; width: 100%; margin: 0; text-align: center; font-size: ${38 + (seed % 4) * 5}px; }
    p { position: absolute; bottom: 20px; width: 100%; margin: 0; text-align: center; letter-spacing: .3em; }
  </style><i style="clip-path: ${shape}; background: hsl(${hue} 90% ${100 - light}%)"></i>
  <i style="clip-path: ${second}; background: hsl(${other} 80% 60% / .6); transform: rotate(${turn}deg)"></i>
  <h1>${title}</h1><p>${year}</p>`;
}

/** Draws a poster as a JPEG, or with `options` another screenshot. */
export async function draw(browser, genres, year, seed, options = {}) {
  const page = await browser.newPage({ viewport: { width: 400, height: 600 }, deviceScaleFactor: options.scale ?? 1 });
  await page.setContent(drawing(genres, year, seed));
  const bytes = await page.screenshot({ type: 'jpeg', quality: 88, ...options.screenshot });
  await page.close();
  return bytes;
}

/** Makes the folder of models `folder/models`; `program(name)` is the path of a binary. */
export async function makeModels(browser, folder, program, root) {
  const run = promisify(execFile);
  const posters = path.join(folder, 'posters');
  await mkdir(posters, { recursive: true });
  const lines = [];
  for (const year of YEARS) {
    for (let i = 0; i < A_YEAR; i += 1) {
      const genres = [NAMES[i % 8], ...(i % 3 ? [NAMES[(i * 3 + 1) % 8]] : [])].filter((genre, at, all) => all.indexOf(genre) === at);
      const name = `${year}-${i}.jpg`;
      await writeFile(path.join(posters, name), await draw(browser, genres, year, i));
      const split = i % 8 === 7 ? 'val' : 'train';
      lines.push({ year, line: `${name},${name},${genres.join('|')},${split},${year}\n` });
    }
  }
  const manifest = async (name, wanted) => {
    const file = path.join(folder, `${name}.csv`);
    await writeFile(file, `id,path,labels,split,year\n${lines.filter(({ year }) => wanted(year)).map(({ line }) => line).join('')}`);
    return file;
  };
  const store = path.join(folder, 'effnet.h5');
  const all = await manifest('all', () => true);
  await run(program('extract'), ['--method', 'effnet', '--manifest', all, '--root', posters, '--out', store, '--quiet'], { cwd: root });

  const models = path.join(folder, 'models');
  const fit = async (name, wanted) => {
    const out = path.join(models, name);
    const data = ['--features', store, '--manifest', await manifest(name, wanted), '--root', posters];
    const small = ['--quiet', '--hidden', '32', '--epochs', '30'];
    await run(program('classify'), [...data, '--out', out, '--task', 'multi-label', ...small], { cwd: root });
    const about = await readAbout(path.join(out, 'model.safetensors'));
    return { about, trained: { folder: name, thresholds: about.classes.map((_, i) => 0.3 + 0.03 * i) } };
  };
  const years = [];
  const clips = { train: (A_YEAR * 7) / 8, val: A_YEAR / 8, test: 0 };
  for (const year of YEARS) {
    const { trained } = await fit(String(year), (other) => other === year);
    years.push({ year, ...trained, clips, metrics: {} });
  }
  const { about, trained: overall } = await fit('all', () => true);
  const { method, model_sha256, untrained, classes: labels } = about;
  const known = { format: 'kinoprobe-posters', format_version: 1, method, card: 'efficientnet_lite2', weights: 'registry', model_sha256 };
  await writeFile(path.join(models, 'posters.json'), JSON.stringify({ ...known, untrained, demo: true, labels, by: 'year', window: null, years, overall }));
  return models;
}

/** What kinoprobe-classify wrote of a model into its file. */
async function readAbout(file) {
  const bytes = await readFile(file);
  const header = JSON.parse(bytes.subarray(8, 8 + Number(bytes.readBigUInt64LE())));
  return JSON.parse(header.__metadata__.kinoprobe);
}
