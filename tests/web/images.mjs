// Pictures to upload: real posters as browsers and cameras make them, and what is none.

import { readFile, readdir } from 'node:fs/promises';
import path from 'node:path';
import { draw } from './models.mjs';

const TYPES = { '.jpg': 'image/jpeg', '.png': 'image/png', '.webp': 'image/webp', '.gif': 'image/gif', '.bmp': 'image/bmp', '.tiff': 'image/tiff' };

/** `{name, mimeType, buffer}` each. */
export async function makePictures(browser, root) {
  const jpeg = await draw(browser, ['Horror', 'Thriller'], 2004, 3);
  const transparent = async () => {
    const page = await browser.newPage({ viewport: { width: 400, height: 600 } });
    await page.setContent('<style>body { margin: 0; background: radial-gradient(circle, hsl(210 80% 40%), transparent) }</style><h1 style="font-size: 90px; opacity: .6">Orbit Nine</h1>');
    const bytes = await page.screenshot({ omitBackground: true });
    await page.close();
    return bytes;
  };
  const fixture = async (name) => [path.basename(name), await readFile(new URL(`fixtures/media/${name}`, root))];
  const odd = (await readdir(new URL('fixtures/media/pictures/', root))).filter((name) => TYPES[path.extname(name)]);
  const pictures = [
    ['horror.jpg', jpeg],
    ['western.png', await draw(browser, ['Western'], 1994, 5, { screenshot: { type: 'png', quality: undefined } })],
    ['large.jpg', await draw(browser, ['Romance', 'Comedy'], 2014, 8, { scale: 4 })],
    ['turned.jpg', turned(jpeg)],
    ['transparent.png', await transparent()],
    await fixture('alpha.png'),
    await fixture('gray.png'),
    await fixture('sixteen.png'),
    await fixture('pixel.png'),
    ...(await Promise.all(odd.map((name) => fixture(`pictures/${name}`)))),
  ];
  return pictures.map(([name, buffer]) => ({ name, mimeType: TYPES[path.extname(name)], buffer }));
}

/** The JPEG with an EXIF that says: taken with the camera turned by a quarter. */
export function turned(jpeg) {
  const tiff = [0x4d, 0x4d, 0, 42, 0, 0, 0, 8, 0, 1, 0x01, 0x12, 0, 3, 0, 0, 0, 1, 0, 6, 0, 0, 0, 0, 0, 0];
  const content = [...Buffer.from('Exif\0\0'), ...tiff];
  return Buffer.concat([jpeg.subarray(0, 2), Buffer.from([0xff, 0xe1, 0, content.length + 2, ...content]), jpeg.subarray(2)]);
}
