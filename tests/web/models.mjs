// Trains small poster models for the tests: the browser draws posters, the real network computes their features, and
// there is one model per year and one for all posters.

import { execFile } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';

const YEARS = [1994, 2004, 2014];
const POSTERS_PER_YEAR = 16;
/** Hue, shape and title by genre. */
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

/** Returns the HTML of a poster of one or two genres. */
function posterHtml(genres, year, seed) {
  const [hue, shape, title] = GENRES[genres[0]];
  const [secondHue, secondShape] = GENRES[genres.at(-1)];
  const [lightness, font] = { 1994: [30, 'serif'], 2004: [45, 'sans-serif'], 2014: [70, 'monospace'] }[year];
  const angle = (seed * 37) % 50 - 25;
  return `<!doctype html><style>
    body { margin: 0; height: 600px; overflow: hidden; position: relative; font-family: ${font}; color: ${lightness > 60 ? '#111' : '#fff'};
           background: linear-gradient(${160 + angle}deg, hsl(${hue + angle / 3} 75% ${lightness}%), hsl(${secondHue} 60% ${lightness / 2}%)); }
    i { position: absolute; left: ${60 + angle}px; top: 130px; width: 280px; height: 280px; }
    h1 { position: absolute; bottom: 60px; width: 100%; margin: 0; text-align: center; font-size: ${38 + (seed % 4) * 5}px; }
    p { position: absolute; bottom: 20px; width: 100%; margin: 0; text-align: center; letter-spacing: .3em; }
  </style><i style="clip-path: ${shape}; background: hsl(${hue} 90% ${100 - lightness}%)"></i>
  <i style="clip-path: ${secondShape}; background: hsl(${secondHue} 80% 60% / .6); transform: rotate(${angle}deg)"></i>
  <h1>${title}</h1><p>${year}</p>`;
}

/** Draws a poster as a JPEG. `options` are the device scale factor and overrides of the screenshot options. */
export async function drawPoster(browser, genres, year, seed, options = {}) {
  const page = await browser.newPage({ viewport: { width: 400, height: 600 }, deviceScaleFactor: options.scale ?? 1 });
  await page.setContent(posterHtml(genres, year, seed));
  const bytes = await page.screenshot({ type: 'jpeg', quality: 88, ...options.screenshot });
  await page.close();
  return bytes;
}

/** Trains the models into `dir/models` and returns that path. `program(name)` is the path of a program. */
export async function trainModels(browser, dir, program, root) {
  const run = promisify(execFile);
  const posters = path.join(dir, 'posters');
  await mkdir(posters, { recursive: true });
  const lines = [];
  for (const year of YEARS) {
    for (let i = 0; i < POSTERS_PER_YEAR; i += 1) {
      const genres = [NAMES[i % 8], ...(i % 3 ? [NAMES[(i * 3 + 1) % 8]] : [])].filter((genre, index, all) => all.indexOf(genre) === index);
      const name = `${year}-${i}.jpg`;
      await writeFile(path.join(posters, name), await drawPoster(browser, genres, year, i));
      const split = i % 8 === 7 ? 'val' : 'train';
      lines.push({ year, line: `${name},${name},${genres.join('|')},${split},${year}\n` });
    }
  }
  const writeManifest = async (name, includes) => {
    const file = path.join(dir, `${name}.csv`);
    await writeFile(file, `id,path,labels,split,year\n${lines.filter(({ year }) => includes(year)).map(({ line }) => line).join('')}`);
    return file;
  };
  const store = path.join(dir, 'effnet.h5');
  const all = await writeManifest('all', () => true);
  await run(program('extract'), ['--method', 'effnet', '--manifest', all, '--root', posters, '--out', store, '--quiet'], { cwd: root });

  const models = path.join(dir, 'models');
  const train = async (name, includes) => {
    const out = path.join(models, name);
    const data = ['--features', store, '--manifest', await writeManifest(name, includes), '--root', posters];
    const settings = ['--quiet', '--hidden', '32', '--epochs', '30'];
    await run(program('classify'), [...data, '--out', out, '--task', 'multi-label', ...settings], { cwd: root });
    const metadata = await readMetadata(path.join(out, 'model.safetensors'));
    return { metadata, entry: { directory: name, thresholds: metadata.classes.map((_, i) => 0.3 + 0.03 * i) } };
  };
  const years = [];
  const clips = { train: (POSTERS_PER_YEAR * 7) / 8, val: POSTERS_PER_YEAR / 8, test: 0 };
  for (const year of YEARS) {
    const { entry } = await train(String(year), (other) => other === year);
    years.push({ year, ...entry, clips, metrics: {} });
  }
  const { metadata, entry: overall } = await train('all', () => true);
  const { method, model_sha256, untrained, classes: labels } = metadata;
  const common = { format: 'kinoprobe-posters', format_version: 1, method, card: 'efficientnet_lite2', weights: 'registry', model_sha256 };
  await writeFile(path.join(models, 'posters.json'), JSON.stringify({ ...common, untrained, demo: true, labels, by: 'year', window: null, years, overall }));
  return models;
}

/** Returns the metadata that kinoprobe-classify wrote to the model file. */
async function readMetadata(file) {
  const bytes = await readFile(file);
  const header = JSON.parse(bytes.subarray(8, 8 + Number(bytes.readBigUInt64LE())));
  return JSON.parse(header.__metadata__.kinoprobe);
}
