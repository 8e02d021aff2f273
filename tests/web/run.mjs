// The page and the exported site in headless Chromium: `make test-web`. Screenshots and what was downloaded stay in
// target/test-web. `CHROMIUM` names another browser, `KINOPROBE_BIN` another folder of programs.

import { execFile, spawn } from 'node:child_process';
import { openSync } from 'node:fs';
import { access, mkdir, rm } from 'node:fs/promises';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { chromium } from 'playwright-core';
import { makeModels } from './models.mjs';
import { checkPage, checkSame } from './page.mjs';
import { makePictures } from './pictures.mjs';
import { transformMatchesTorchvision } from './transform.mjs';

const rootUrl = new URL('../../', import.meta.url);
const root = fileURLToPath(rootUrl);
const out = path.join(root, 'target/test-web');
const program = (name) => path.join(path.resolve(root, process.env.KINOPROBE_BIN ?? 'target/release'), `kinoprobe-${name}`);

const tally = { passed: 0, failed: 0 };

/** Runs a check, says how it went, and goes on. */
async function check(name, body) {
  try {
    const said = await body();
    tally.passed += 1;
    console.log(`ok    ${name}${said ? `: ${said}` : ''}`);
  } catch (error) {
    tally.failed += 1;
    console.log(`FAIL  ${name}\n${String(error.stack ?? error).replace(/^/gm, '      ')}`);
  }
}

const children = [];

/** Starts a server and waits for the line that says its port. What it complains of goes to servers.log. */
async function serve(command, args, address) {
  const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'pipe', openSync(path.join(out, 'servers.log'), 'a')] });
  children.push(child);
  const ended = new Promise((_, reject) => {
    child.on('error', reject);
    child.on('exit', (code) => reject(new Error(`${command} ended with ${code}: see servers.log`)));
  });
  ended.catch(() => {});
  const said = (async () => {
    for await (const line of createInterface({ input: child.stdout })) {
      const [, port] = address.exec(line) ?? [];
      if (port) return `http://127.0.0.1:${port}/`;
    }
    return ended;
  })();
  return Promise.race([said, ended]);
}

async function main(browser) {
  await check('the script’s transform is torchvision’s', transformMatchesTorchvision);
  console.log('drawing posters, training small models…');
  const models = await makeModels(browser, out, program, root);
  const pictures = await makePictures(browser, rootUrl);

  const site = path.join(out, 'host/some/folder');
  await check('the site is exported', async () => {
    await promisify(execFile)(program('serve'), ['--models', models, '--export', site], { cwd: root });
  });
  const server = await serve(program('serve'), ['--models', models, '--addr', '127.0.0.1:0'], /^http:.*:(\d+)\/$/);
  const host = await serve('python3', ['-u', '-m', 'http.server', '--bind', '127.0.0.1', '--directory', path.join(out, 'host'), '0'], /port (\d+)/);

  const places = [['server', server], ['site', `${host}some/folder/`]];
  for (const [place, address] of places) {
    for (const width of [1280, 360]) await checkPage({ browser, check, place, address, width, pictures, out });
  }
  await checkSame({ browser, check, places, pictures });
}

await rm(out, { recursive: true, force: true });
await mkdir(out, { recursive: true });
const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
await access(executablePath).catch(() => {
  console.error(`${executablePath} is missing: install Chromium (Debian: chromium), or name it in CHROMIUM`);
  process.exit(1);
});
const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
try {
  await main(browser);
} catch (error) {
  tally.failed += 1;
  console.log(`FAIL  ${error.stack ?? error}`);
} finally {
  await browser.close();
  children.forEach((child) => child.kill());
}
console.log(`screenshots: ${path.relative(root, out)}/*.png`);
console.log(`${tally.passed} passed, ${tally.failed} failed`);
process.exit(tally.failed ? 1 : 0);
