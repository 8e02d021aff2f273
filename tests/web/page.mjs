// Checks of the page in a browser, with the actions of a user.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import axe from 'axe-core';

const TEXT_FILE = { name: 'notes.png', mimeType: 'image/png', buffer: Buffer.from('Text in a file named like an image.\n') };
const truncate = (image) => ({ ...image, name: 'truncated.jpg', buffer: image.buffer.subarray(0, image.buffer.length / 2) });
/** Messages of the site for images that browsers do not decode, or decode differently. */
const UNSUPPORTED_BY_SITE = { 'cmyk.jpg': 'has CMYK colors: save it as RGB.', 'deflate.tiff': 'is not a supported image (JPEG, PNG, WebP, GIF, BMP); the format is detected from the content, not the file name.' };
/** Time for the network to load and run on a busy machine, in milliseconds. */
const TIMEOUT = 300_000;

/** Opens the page in a new browser context. `problems` collects its errors and its requests to other hosts. */
async function open(browser, address, width, colorScheme = 'light') {
  const context = await browser.newContext({ viewport: { width, height: width < 600 ? 740 : 900 }, colorScheme, acceptDownloads: true });
  context.setDefaultTimeout(TIMEOUT);
  const page = await context.newPage();
  const problems = [];
  page.on('pageerror', (error) => problems.push(error.message));
  page.on('console', (message) => {
    // The browser itself logs responses with an error status.
    if (message.type() === 'error' && !/status of 4(15|22)/.test(message.text())) problems.push(message.text());
  });
  context.on('request', (request) => {
    const url = request.url();
    if (!url.startsWith(address) && !/^(blob|data):/.test(url)) problems.push(`requests ${url}`);
  });
  await page.goto(address);
  await page.locator('#year option').nth(1).waitFor({ state: 'attached' });
  return { context, page, problems };
}

/** Waits for `count` cards with results. Polls by time because a busy machine may render no frames for a while. */
async function waitForResults(page, count) {
  const isComplete = (count) => document.querySelectorAll('.card').length === count && !document.querySelector('.pending');
  await page.waitForFunction(isComplete, count, { polling: 100 });
}

/** Uploads files and waits for their results. Returns the cards of the files. */
async function upload(page, files) {
  const before = await page.locator('.card').count();
  await page.locator('#files').setInputFiles(files);
  await waitForResults(page, before + files.length);
  return files.map((_, i) => page.locator('.card').nth(i));
}

const texts = async (locator) => (await locator.allInnerTexts()).map((text) => text.trim());

/** Clicks a button and returns the content of the file it downloads. */
async function download(page, button, dir) {
  const [event] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: button }).click()]);
  const file = path.join(dir, event.suggestedFilename());
  await event.saveAs(file);
  return readFile(file, 'utf8');
}

/** Fails on serious and critical accessibility violations. */
export async function checkAccessibility(page) {
  await page.evaluate(axe.source); // addScriptTag would violate the page's Content-Security-Policy
  const { violations, passes } = await page.evaluate(() => axe.run(document, { resultTypes: ['violations', 'passes'] }));
  const serious = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
  const report = serious.map(({ id, help, nodes }) => `${id}: ${help}\n  ${nodes.slice(0, 4).map(({ html }) => html).join('\n  ')}`);
  assert.equal(serious.length, 0, report.join('\n'));
  return `${passes.length} rules pass${violations.length ? `; minor violations: ${violations.map(({ id }) => id).join(', ')}` : ''}`;
}

/** Checks the page at one window width. */
export async function checkPage({ browser, check, variant, address, width, images, out }) {
  const title = `${variant} ${width}`;
  const screenshot = (page, name) => page.screenshot({ path: path.join(out, `${variant}-${width}-${name}.png`), fullPage: true });
  const { context, page, problems } = await open(browser, address, width);
  const [poster, second, third] = images;

  await check(`${title}: page loads`, async () => {
    assert.equal(await page.locator('h1').count(), 1);
    assert.match(await page.locator('#badge').innerText(), /demo/);
    assert.deepEqual(await texts(page.locator('#year option')), ['all', '1994', '2004', '2014']);
    await screenshot(page, 'empty');
  });

  await check(`${title}: keyboard navigation`, async () => {
    await page.locator('body').press('Tab');
    const focused = await page.evaluate(() => document.activeElement.id);
    assert.equal(focused, 'files');
    const outline = await page.locator('label[for=files]').evaluate((label) => getComputedStyle(label).outlineStyle);
    assert.equal(outline, 'solid');
    const [card] = await upload(page, [poster]);
    await card.getByRole('button', { name: 'Remove horror.jpg' }).press('Enter');
    assert.equal(await page.locator('.card').count(), 0);
    assert.ok(await page.locator('#results').isHidden());
    assert.equal(await page.evaluate(() => document.activeElement.id), 'files');
  });

  await check(`${title}: a poster shows six genres and a row per year`, async () => {
    const [card] = await upload(page, [poster]);
    assert.equal(await card.locator('.bars li').count(), 6);
    const scores = (await texts(card.locator('.bars .number'))).map(parseFloat);
    assert.deepEqual(scores, scores.toSorted((a, b) => b - a));
    assert.equal(await card.locator('.years tbody tr').count(), 3);
    assert.equal(await card.locator('.heatmap tbody tr').count(), 8);
    assert.equal(await card.locator('.heatmap tbody td').count(), 24);
    assert.ok(await card.locator('img.thumbnail').evaluate((image) => image.naturalWidth > 0));
    assert.match(await page.locator('#status').innerText(), /^horror\.jpg: /);
    await screenshot(page, 'one');
    if (variant === 'server' && width === 1280) await page.screenshot({ path: path.join(out, 'docs/page.png') });
  });

  await check(`${title}: a text file and a truncated image show errors`, async () => {
    const cards = await upload(page, [TEXT_FILE, truncate(poster)]);
    const messages = await texts(page.locator('.error'));
    assert.equal(cards.length, 2);
    assert.match(messages[0], /^notes\.png is not a supported image.*not the file name\.$/);
    assert.match(messages[1], /^truncated\.jpg cannot be decoded: .*truncated.*\.$/);
    await screenshot(page, 'rejected');
    return messages.join(' | ');
  });

  await check(`${title}: several files, year selection, scores in heatmaps`, async () => {
    const [card] = await upload(page, [second, third]);
    const before = await texts(card.locator('.bars li'));
    await page.locator('#year').selectOption('2014');
    assert.match(await page.locator('#status').innerText(), /2014/);
    assert.notDeepEqual(await texts(card.locator('.bars li')), before);
    const row = await texts(card.locator('.years tr', { hasText: '2014' }).locator('li'));
    const shown = await texts(card.locator('.bars .label'));
    assert.deepEqual(row.map((text) => text.replace(/ [\d.]+$/, '')), shown);
    await page.locator('#numbers').check();
    await screenshot(page, 'several');
  });

  await check(`${title}: CSV and JSON match the page`, async () => {
    const lines = (await download(page, 'Download CSV', out)).trimEnd().split('\r\n');
    assert.equal(lines[0], 'file,kind,year,seconds,rank,genre,score,likely');
    assert.equal(lines.length, 1 + 3 * (8 + 3 * 8)); // three posters, each with overall scores and three years of eight genres
    const { results } = JSON.parse(await download(page, 'Download JSON', out));
    assert.equal(results.length, 3);
    const best = results[0].overall[0];
    assert.ok(lines.some((line) => line.startsWith(`horror.jpg,image,,,1,${best.label},${best.score},`)));
  });

  await check(`${title}: no horizontal scrolling`, async () => {
    const [content, window] = await page.evaluate(() => [document.scrollingElement.scrollWidth, innerWidth]);
    assert.ok(content <= window, `content is ${content} pixels wide, the window ${window}`);
  });

  await check(`${title}: drag and drop, paste`, async () => {
    for (const kind of ['drop', 'paste']) {
      const before = await page.locator('.card').count();
      await page.evaluate(([kind, bytes]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], `${kind}.png`, { type: 'image/png' }));
        const event = kind === 'drop' ? new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }) : new ClipboardEvent('paste', { clipboardData: data, bubbles: true });
        document.body.dispatchEvent(event);
      }, [kind, [...second.buffer]]);
      await waitForResults(page, before + 1);
      assert.equal(await page.locator('.card').first().locator('.bars li').count(), 6);
    }
  });

  await check(`${title}: accessibility, light color scheme`, () => checkAccessibility(page));
  await check(`${title}: accessibility, dark color scheme`, async () => {
    await page.emulateMedia({ colorScheme: 'dark' });
    await screenshot(page, 'dark');
    return checkAccessibility(page);
  });

  await check(`${title}: clear; no console errors, no requests to other hosts`, async () => {
    await page.getByRole('button', { name: 'Clear' }).click();
    assert.equal(await page.locator('.card').count(), 0);
    assert.ok(await page.locator('#results').isHidden());
    assert.deepEqual(problems, []);
  });
  await context.close();
}

/** Checks the page of a server whose models have neither years nor a warning. */
export async function checkWithoutYears({ browser, check, address, images, out }) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
  context.setDefaultTimeout(TIMEOUT);
  const page = await context.newPage();
  const change = (pattern, edit) => page.route(pattern, async (route) => {
    const response = await route.fetch({ timeout: TIMEOUT });
    const json = await response.json();
    edit(json);
    await route.fulfill({ response, json });
  });
  await change('**/api/models', ({ models: [model] }) => Object.assign(model, { years: [], by: 'none', demo: false, untrained: false }));
  await change('**/api/predict', ({ results }) => results.forEach((result) => { result.years = []; }));
  await page.goto(address);
  await page.waitForFunction(() => document.querySelector('#model').textContent);
  await check('a model without years: no empty badge, no mention of years', async () => {
    assert.ok(await page.locator('#badge').isHidden());
    const [card] = await upload(page, [images[0]]);
    assert.ok(await page.locator('#year-field').isHidden());
    assert.doesNotMatch(await page.locator('body').innerText(), /year/i);
    await page.screenshot({ path: path.join(out, 'without-years.png'), fullPage: true });
    assert.match(await card.locator('.legend').innerText(), /^Threshold of the genre/);
  });
  await check('each score is shown with its threshold', async () => {
    const rows = page.locator('.bars li');
    assert.ok(await rows.count());
    for (const row of await rows.all()) {
      const score = parseFloat(await row.locator('.number').innerText());
      const [, sign, limit] = /^([≥<]) ([\d.]+)/.exec(await row.locator('.limit').innerText());
      // Both numbers are rounded.
      assert.ok(sign === '≥' ? score >= limit - 0.01 : score <= Number(limit) + 0.01, `${score} ${sign} ${limit}`);
      assert.equal((await row.getAttribute('class')) === 'likely', sign === '≥');
    }
  });
  await context.close();
}

/** Checks that server and site return the same scores for the same images, with a tolerance of 1e-3. */
export async function compareScores({ browser, check, variants, images }) {
  const predictions = [];
  for (const [variant, address] of variants) {
    const { context, page } = await open(browser, address, 1280);
    const errors = new Map();
    for (const image of images) {
      const [card] = await upload(page, [image]);
      for (const message of await texts(card.locator('.error'))) errors.set(image.name, message);
    }
    await check(`${variant}: all supported images have scores`, () => {
      const expected = variant === 'site' ? Object.entries(UNSUPPORTED_BY_SITE).map(([name, message]) => [name, `${name} ${message}`]) : [];
      assert.deepEqual([...errors], expected);
    });
    const [event] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Download JSON' }).click()]);
    const { results } = JSON.parse(await readFile(await event.path(), 'utf8'));
    predictions.push(new Map(results.map((result) => [result.name, result])));
    await context.close();
  }
  const [server, site] = predictions;
  for (const name of site.keys()) {
    await check(`server and site agree on ${name}`, () => {
      const [a, b] = [server.get(name), site.get(name)].map(scoresByKey);
      assert.deepEqual([...a.keys()].toSorted(), [...b.keys()].toSorted());
      const difference = Math.max(...[...a].map(([key, score]) => Math.abs(score - b.get(key))));
      assert.ok(difference <= 1e-3, `scores differ by ${difference}`);
      return `${a.size} scores, maximum difference ${difference.toExponential(1)}`;
    });
  }
}

/** Returns a Map from year (or `all`) and genre to score. */
function scoresByKey({ years, overall }) {
  const entry = (key) => ({ label, score }) => [`${key} ${label}`, score];
  return new Map([...overall.map(entry('all')), ...years.flatMap(({ year, genres }) => genres.map(entry(year)))]);
}
