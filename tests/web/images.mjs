// Images to upload: posters in the formats of browsers and cameras, and the image fixtures.

import { readFile, readdir } from 'node:fs/promises';
import path from 'node:path';
import { drawPoster } from './models.mjs';

const TYPES = { '.jpg': 'image/jpeg', '.png': 'image/png', '.webp': 'image/webp', '.gif': 'image/gif', '.bmp': 'image/bmp', '.tiff': 'image/tiff' };

/** Returns the images as `{name, mimeType, buffer}`. */
export async function makeImages(browser, root) {
  const jpeg = await drawPoster(browser, ['Horror', 'Thriller'], 2004, 3);
  const drawTransparent = async () => {
    const page = await browser.newPage({ viewport: { width: 400, height: 600 } });
    await page.setContent('<style>body { margin: 0; background: radial-gradient(circle, hsl(210 80% 40%), transparent) }</style><h1 style="font-size: 90px; opacity: .6">Orbit Nine</h1>');
    const bytes = await page.screenshot({ omitBackground: true });
    await page.close();
    return bytes;
  };
  const readFixture = async (name) => [path.basename(name), await readFile(new URL(`fixtures/media/${name}`, root))];
  const fixtures = (await readdir(new URL('fixtures/media/pictures/', root))).filter((name) => TYPES[path.extname(name)]);
  const images = [
    ['horror.jpg', jpeg],
    ['western.png', await drawPoster(browser, ['Western'], 1994, 5, { screenshot: { type: 'png', quality: undefined } })],
    ['large.jpg', await drawPoster(browser, ['Romance', 'Comedy'], 2014, 8, { scale: 4 })],
    ['rotated.jpg', rotated(jpeg)],
    ['transparent.png', await drawTransparent()],
    await readFixture('alpha.png'),
    await readFixture('gray.png'),
    await readFixture('sixteen.png'),
    await readFixture('pixel.png'),
    ...(await Promise.all(fixtures.map((name) => readFixture(`pictures/${name}`)))),
  ];
  return images.map(([name, buffer]) => ({ name, mimeType: TYPES[path.extname(name)], buffer }));
}

/** Adds an EXIF segment with orientation 6 (rotated by 90°) to a JPEG. */
function rotated(jpeg) {
  const tiff = [0x4d, 0x4d, 0, 42, 0, 0, 0, 8, 0, 1, 0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0];
  const content = [...Buffer.from('Exif\0\0'), ...tiff];
  return Buffer.concat([jpeg.subarray(0, 2), Buffer.from([0xff, 0xe1, 0, content.length + 2, ...content]), jpeg.subarray(2)]);
}
