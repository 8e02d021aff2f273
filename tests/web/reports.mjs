// Checks of report.html of a run and of a comparison: they are single files that fit the window. Screenshots of them, and of the web
// page, are candidates for docs/.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { checkAccessibility } from './page.mjs';

/** Size limit of the images in docs/ in bytes. */
const MAX_BYTES = 150_000;

/** Trains three classifiers on the demo clips and compares them. Returns the directory of the runs. */
export async function makeRuns(program, root, out) {
  const run = (name, args) => promisify(execFile)(program(name), args, { cwd: root });
  const demo = path.join(out, 'clips');
  const at = (name) => path.join(demo, name);
  const data = ['--manifest', at('manifest.csv')];
  await run('demo', ['--out', demo, '--quiet']);
  await run('extract', ['--method', 'effnet', ...data, '--frames', '2', '--out', at('effnet.h5'), '--quiet']);
  await run('extract', ['--method', 'sift', ...data, '--frames', '2', '--out', at('sift.descriptors.h5'), '--quiet']);
  await run('codebook', ['--descriptors', at('sift.descriptors.h5'), ...data, '--recipe', 'pipelines/sift.toml', '--out', at('sift.h5'), '--quiet']);
  for (const [method, classifier] of [['effnet', 'logistic'], ['effnet', 'mlp'], ['sift', 'mlp']]) {
    const args = ['--features', at(`${method}.h5`), ...data, '--classifier', classifier, '--out', at(`runs/${method}-${classifier}`), '--quiet'];
    await run('classify', args);
  }
  await run('compare', [at('runs'), '--out', at('runs/comparison')]);
  return at('runs');
}

/** Checks the reports of the runs that `makeRuns` made. */
export async function checkReports({ browser, check, runs, out }) {
  for (const [name, directory] of [['comparison', 'comparison'], ['run', 'sift-mlp']]) {
    const file = path.join(runs, directory, 'report.html');
    for (const width of [1280, 360]) {
      await check(`report of a ${name}, ${width}`, async () => {
        const page = await browser.newPage({ viewport: { width, height: 800 } });
        const requests = [];
        page.on('request', (request) => { if (!request.url().startsWith('data:')) requests.push(request.url()); });
        await page.goto(pathToFileURL(file).href);
        assert.deepEqual(requests, [pathToFileURL(file).href], 'a single file');
        assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth), 'wider than the window');
        const images = await page.locator('img').evaluateAll((all) => all.map((image) => image.naturalWidth));
        assert.ok(images.length && images.every((side) => side > 0 && side <= 96), `thumbnails: ${images}`);
        await page.screenshot({ path: path.join(out, `${name}-${width}.png`), fullPage: true });
        if (width === 1280) await docsScreenshots(page, out, name);
        const details = await checkAccessibility(page);
        await page.close();
        return `${images.length} thumbnails, ${(await stat(file)).size} bytes; ${details}`;
      });
    }
  }
}

/** Takes the screenshots of a report that docs/ has: the top of a comparison, and the clips of the confusions of a run. */
async function docsScreenshots(page, out, name) {
  const docs = path.join(out, 'docs');
  if (name === 'comparison') {
    await page.screenshot({ path: path.join(docs, 'comparison.png'), clip: { x: 0, y: 0, width: 1280, height: 760 } });
    return;
  }
  await page.locator('h3', { hasText: 'Clips of each confusion' }).first().evaluate((heading) => heading.scrollIntoView());
  await page.screenshot({ path: path.join(docs, 'clips.png'), clip: { x: 0, y: 0, width: 1010, height: 255 } });
}

/** Checks that the images of the README are small, and that it shows all of them. */
export async function checkDocs({ check, root }) {
  await check('images of the README', async () => {
    const readme = await readFile(path.join(root, 'README.md'), 'utf8');
    const files = [...readme.matchAll(/\]\((docs\/[^)]+\.png)\)/g)].map(([, file]) => file);
    assert.ok(files.length >= 2, 'a report and the web page');
    for (const file of files) assert.ok((await stat(path.join(root, file))).size < MAX_BYTES, file);
  });
}
