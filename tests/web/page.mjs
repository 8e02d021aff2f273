// What a visitor does with the page, and what must come of it.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import axe from 'axe-core';

const TEXT = { name: 'notes.png', mimeType: 'image/png', buffer: Buffer.from('Not a picture, whatever its name says.\n') };
const CUT = (picture) => ({ ...picture, name: 'cut.jpg', buffer: picture.buffer.subarray(0, picture.buffer.length / 2) });
/** What browsers do not read, or each in its own way: of these the site says so. */
const SERVER_ALONE = { 'cmyk.jpg': 'is in print colors (CMYK): save it in RGB.', 'deflate.tiff': 'is not a picture that this page can look at (JPEG, PNG, WebP, GIF, BMP), whatever its name says.' };
/** How long the network may take to load and to run, on a machine with other work. */
const PATIENCE = 300_000;

/** A fresh page in a window of its own, with what went wrong on it. */
async function open(browser, address, width, colorScheme = 'light') {
  const context = await browser.newContext({ viewport: { width, height: width < 600 ? 740 : 900 }, colorScheme, acceptDownloads: true });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  const problems = [];
  page.on('pageerror', (error) => problems.push(error.message));
  page.on('console', (message) => {
    // A browser says by itself that the server refused a file.
    if (message.type() === 'error' && !/status of 4(15|22)/.test(message.text())) problems.push(message.text());
  });
  context.on('request', (request) => {
    const url = request.url();
    if (!url.startsWith(address) && !/^(blob|data):/.test(url)) problems.push(`asks ${url}`);
  });
  await page.goto(address);
  await page.locator('#year option').nth(1).waitFor({ state: 'attached' });
  return { context, page, problems };
}

/** Waits until there are so many cards and each has its answer. By the clock: a busy machine may draw no frame for long. */
async function settled(page, count) {
  const is = (count) => document.querySelectorAll('.card').length === count && !document.querySelector('.waiting');
  await page.waitForFunction(is, count, { polling: 100 });
}

/** Chooses files and waits until each has its answer; gives the cards of these files. */
async function upload(page, files) {
  const before = await page.locator('.card').count();
  await page.locator('#files').setInputFiles(files);
  await settled(page, before + files.length);
  return files.map((_, i) => page.locator('.card').nth(i));
}

const texts = async (locator) => (await locator.allInnerTexts()).map((text) => text.trim());

/** Presses a button and reads what it downloads. */
async function downloaded(page, button, folder) {
  const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: button }).click()]);
  const file = path.join(folder, download.suggestedFilename());
  await download.saveAs(file);
  return readFile(file, 'utf8');
}

/** Fails on serious and critical accessibility faults. */
async function accessible(page) {
  await page.evaluate(axe.source); // not a script of the page: its policy would refuse it
  const { violations, passes } = await page.evaluate(() => axe.run(document, { resultTypes: ['violations', 'passes'] }));
  const grave = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
  const said = grave.map(({ id, help, nodes }) => `${id}: ${help}\n  ${nodes.slice(0, 4).map(({ html }) => html).join('\n  ')}`);
  assert.equal(grave.length, 0, said.join('\n'));
  return `${passes.length} rules hold${violations.length ? `; lesser faults: ${violations.map(({ id }) => id).join(', ')}` : ''}`;
}

/** One visit at one width. */
export async function checkPage({ browser, check, place, address, width, pictures, out }) {
  const title = `${place} ${width}`;
  const shoot = (page, name) => page.screenshot({ path: path.join(out, `${place}-${width}-${name}.png`), fullPage: true });
  const { context, page, problems } = await open(browser, address, width);
  const [poster, second, third] = pictures;

  await check(`${title}: opens`, async () => {
    assert.equal(await page.locator('h1').count(), 1);
    assert.match(await page.locator('#badge').innerText(), /demo/);
    assert.deepEqual(await texts(page.locator('#year option')), ['all', '1994', '2004', '2014']);
    await shoot(page, 'empty');
  });

  await check(`${title}: by keyboard`, async () => {
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

  await check(`${title}: a poster gives its six likeliest genres, and a row a year`, async () => {
    const [card] = await upload(page, [poster]);
    assert.equal(await card.locator('.bars li').count(), 6);
    const scores = (await texts(card.locator('.bars .number'))).map(parseFloat);
    assert.deepEqual(scores, scores.toSorted((a, b) => b - a));
    assert.equal(await card.locator('.years tbody tr').count(), 3);
    assert.equal(await card.locator('.map tbody tr').count(), 8);
    assert.equal(await card.locator('.map tbody td').count(), 24);
    assert.ok(await card.locator('img.thumbnail').evaluate((image) => image.naturalWidth > 0));
    assert.match(await page.locator('#status').innerText(), /^horror\.jpg: /);
    await shoot(page, 'one');
  });

  await check(`${title}: a text file and a cut picture give sentences`, async () => {
    const cards = await upload(page, [TEXT, CUT(poster)]);
    const said = await texts(page.locator('.problem'));
    assert.equal(cards.length, 2);
    assert.match(said[0], /^notes\.png is (neither|not) a picture.*whatever its name says\.$/);
    assert.match(said[1], /^cut\.jpg.*cut off.*\.$/);
    await shoot(page, 'refused');
    return said.join(' | ');
  });

  await check(`${title}: several at once, the switch of the year, numbers in the maps`, async () => {
    const [card] = await upload(page, [second, third]);
    const before = await texts(card.locator('.bars li'));
    await page.locator('#year').selectOption('2014');
    assert.match(await page.locator('#status').innerText(), /2014/);
    assert.notDeepEqual(await texts(card.locator('.bars li')), before);
    const row = await texts(card.locator('.years tr', { hasText: '2014' }).locator('li'));
    const shown = await texts(card.locator('.bars .label'));
    assert.deepEqual(row.map((text) => text.replace(/ [\d.]+$/, '')), shown);
    await page.locator('#numbers').check();
    await shoot(page, 'several');
  });

  await check(`${title}: CSV and JSON say what the page shows`, async () => {
    const lines = (await downloaded(page, 'Download CSV', out)).trimEnd().split('\r\n');
    assert.equal(lines[0], 'file,kind,year,seconds,rank,genre,score,likely');
    assert.equal(lines.length, 1 + 3 * (8 + 3 * 8)); // three posters: overall and three years of eight genres
    const { results } = JSON.parse(await downloaded(page, 'Download JSON', out));
    assert.equal(results.length, 3);
    const best = results[0].overall[0];
    assert.ok(lines.some((line) => line.startsWith(`horror.jpg,image,,,1,${best.label},${best.score},`)));
  });

  await check(`${title}: nothing is wider than the window`, async () => {
    const [content, window] = await page.evaluate(() => [document.scrollingElement.scrollWidth, innerWidth]);
    assert.ok(content <= window, `${content} pixels in ${window}`);
  });

  await check(`${title}: drop and paste`, async () => {
    for (const kind of ['drop', 'paste']) {
      const before = await page.locator('.card').count();
      await page.evaluate(([kind, bytes]) => {
        const data = new DataTransfer();
        data.items.add(new File([new Uint8Array(bytes)], `${kind}.png`, { type: 'image/png' }));
        const event = kind === 'drop' ? new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }) : new ClipboardEvent('paste', { clipboardData: data, bubbles: true });
        document.body.dispatchEvent(event);
      }, [kind, [...second.buffer]]);
      await settled(page, before + 1);
      assert.equal(await page.locator('.card').first().locator('.bars li').count(), 6);
    }
  });

  await check(`${title}: no accessibility fault in the light`, () => accessible(page));
  await check(`${title}: no accessibility fault in the dark`, async () => {
    await page.emulateMedia({ colorScheme: 'dark' });
    await shoot(page, 'dark');
    return accessible(page);
  });

  await check(`${title}: clears; no error in the console, nothing asked of other hosts`, async () => {
    await page.getByRole('button', { name: 'Clear' }).click();
    assert.equal(await page.locator('.card').count(), 0);
    assert.ok(await page.locator('#results').isHidden());
    assert.deepEqual(problems, []);
  });
  await context.close();
}

/** The scores of both pages for the same pictures, at most 1e-3 apart. */
export async function checkSame({ browser, check, places, pictures }) {
  const answers = [];
  for (const [place, address] of places) {
    const { context, page } = await open(browser, address, 1280);
    const refused = new Map();
    for (const picture of pictures) {
      const [card] = await upload(page, [picture]);
      for (const sentence of await texts(card.locator('.problem'))) refused.set(picture.name, sentence);
    }
    await check(`${place}: every picture it can read gets its scores`, () => {
      const expected = place === 'site' ? Object.entries(SERVER_ALONE).map(([name, said]) => [name, `${name} ${said}`]) : [];
      assert.deepEqual([...refused], expected);
    });
    const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Download JSON' }).click()]);
    const { results } = JSON.parse(await readFile(await download.path(), 'utf8'));
    answers.push(new Map(results.map((result) => [result.name, result])));
    await context.close();
  }
  const [served, inBrowser] = answers;
  for (const name of inBrowser.keys()) {
    await check(`server and site agree on ${name}`, () => {
      const [a, b] = [served.get(name), inBrowser.get(name)].map(scoresOf);
      assert.deepEqual([...a.keys()].toSorted(), [...b.keys()].toSorted());
      const most = Math.max(...[...a].map(([key, score]) => Math.abs(score - b.get(key))));
      assert.ok(most <= 1e-3, `scores differ by ${most}`);
      return `${a.size} scores, ${most.toExponential(1)} apart at most`;
    });
  }
}

/** Every score of a prediction by year (or `all`) and genre. */
function scoresOf({ years, overall }) {
  const each = (key) => ({ label, score }) => [`${key} ${label}`, score];
  return new Map([...overall.map(each('all')), ...years.flatMap(({ year, genres }) => genres.map(each(year)))]);
}
