// Tests the page and the exported site in headless Chromium: `make test-web`. Screenshots and downloads are kept in
// target/test-web. `CHROMIUM` is the path of the browser, `KINOPROBE_BIN` the directory of the programs.

import { execFile, spawn } from 'node:child_process';
import { openSync } from 'node:fs';
import { access, mkdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { chromium } from 'playwright-core';
import { trainModels } from './models.mjs';
import { checkPage, checkWithoutYears, compareScores } from './page.mjs';
import { makeImages } from './images.mjs';
import { checkDocs, checkReports, makeRuns } from './reports.mjs';
import { transformMatchesTorchvision } from './transform.mjs';

const rootUrl = new URL('../../', import.meta.url);
const root = fileURLToPath(rootUrl);
const out = path.join(root, 'target/test-web');
const program = (name) => path.join(path.resolve(root, process.env.KINOPROBE_BIN ?? 'target/release'), `kinoprobe-${name}`);

const counts = { passed: 0, failed: 0 };

/** Runs a check and prints its result. A failure does not stop the run. */
async function check(name, body) {
  try {
    const details = await body();
    counts.passed += 1;
    console.log(`ok    ${name}${details ? `: ${details}` : ''}`);
  } catch (error) {
    counts.failed += 1;
    console.log(`FAIL  ${name}\n${String(error.stack ?? error).replace(/^/gm, '      ')}`);
  }
}

const children = [];

/** Starts a server and waits for the line with its port, the first group of `pattern`. Its stderr goes to servers.log. */
async function serve(command, args, pattern) {
  const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', openSync(path.join(out, 'servers.log'), 'a')] });
  children.push(child);
  const ended = new Promise((_, reject) => {
    child.on('error', reject);
    child.on('exit', (code) => reject(new Error(`${command} ended with ${code}: see servers.log`)));
  });
  ended.catch(() => {});
  const url = (async () => {
    for await (const line of createInterface({ input: child.stdout })) {
      const [, port] = pattern.exec(line) ?? [];
      if (port) return `http://127.0.0.1:${port}/`;
    }
    return ended;
  })();
  return Promise.race([url, ended]);
}

async function main(browser) {
  await check('the transform matches torchvision', transformMatchesTorchvision);
  await checkDocs({ check, root });
  console.log('training classifiers on clips…');
  const runs = await makeRuns(program, root, out);
  await checkReports({ browser, check, runs, out });
  console.log('drawing posters, training small models…');
  const models = await trainModels(browser, out, program, root);
  const images = await makeImages(browser, rootUrl);

  const site = path.join(out, 'host/some/dir');
  await check('export the site', async () => {
    await promisify(execFile)(program('serve'), ['--models', models, '--export', site], { cwd: root });
  });
  const server = await serve(program('serve'), ['--models', models, '--addr', '127.0.0.1:0'], /^http:.*:(\d+)\/$/);
  const host = await serve('python3', ['-u', '-m', 'http.server', '--bind', '127.0.0.1', '--directory', path.join(out, 'host'), '0'], /port (\d+)/);

  const variants = [['server', server], ['site', `${host}some/dir/`]];
  for (const [variant, address] of variants) {
    for (const width of [1280, 360]) await checkPage({ browser, check, variant, address, width, images, out });
  }
  await checkWithoutYears({ browser, check, address: server, images, out });
  await compareScores({ browser, check, variants, images });
}

await rm(out, { recursive: true, force: true });
await mkdir(path.join(out, 'docs'), { recursive: true });
const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
await access(executablePath).catch(() => {
  console.error(`${executablePath} is missing: install Chromium (Debian: chromium), or set CHROMIUM to its path`);
  process.exit(1);
});
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
try {
  await main(browser);
} catch (error) {
  counts.failed += 1;
  console.log(`FAIL  ${error.stack ?? error}`);
} finally {
  await browser.close();
  children.forEach((child) => child.kill());
}
console.log(`screenshots: ${path.relative(root, out)}/*.png`);
console.log(`${counts.passed} passed, ${counts.failed} failed`);
process.exit(counts.failed ? 1 : 0);
