// Compares the site's transform with torchvision's, using the goldens of tests/suite/transform.rs.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { transform } from '../../src/serve/site/transform.js';

const root = new URL('../../', import.meta.url);

/** Checks all golden cases of all cards: at most one 8-bit value in a thousand differs, and by at most 1. */
export async function transformMatchesTorchvision() {
  const { cases } = JSON.parse(await readFile(new URL('fixtures/media/transform.json', root)));
  const pixels = await readFile(new URL('fixtures/media/transform.bin', root));
  for (const { card, height, width, offset, shape, row } of cases) {
    const input = await readInput(card);
    const [rows, columns] = input.size;
    const planes = transform(input, testImage(height, width));
    const count = shape.reduce((product, n) => product * n);
    let different = 0;
    for (let i = 0; i < count; i += 1) {
      const c = Math.trunc(i / (shape[1] * shape[2]));
      const y = (Math.trunc(i / shape[2]) % shape[1]) * 5;
      const x = (i % shape[2]) * 5;
      const value = (planes[(c * rows + y) * columns + x] * input.std[c] + input.mean[c]) * input.scale;
      const difference = Math.abs(value - pixels[offset + i]);
      assert.ok(difference < 1.001, `${card} ${height}x${width}: channel ${c}, row ${y}, column ${x}: ${value}, expected ${pixels[offset + i]}`);
      if (difference > 0.001) different += 1;
    }
    assert.ok(different * 1000 <= count, `${card} ${height}x${width}: ${different} of ${count} differ`);
    const actual = planes.subarray((rows + 30) * columns).subarray(0, row.length);
    const same = row.filter((value, i) => Math.fround(value) === actual[i]).length;
    assert.ok(same >= row.length - 1, `${card} ${height}x${width}: ${actual}, expected ${row}`);
  }
  return `${cases.length} cases`;
}

/** Returns the `[input]` section of a card. Apart from `key = `, its TOML values are valid JSON. */
async function readInput(card) {
  const text = await readFile(new URL(`models/${card}.toml`, root), 'utf8');
  const section = text.split(/^\[/m).find((part) => part.startsWith('input]'));
  const input = { scale: 255, color: 'rgb' };
  for (const [, key, value] of section.matchAll(/^(\w+) = ([^#\n]+)/gm)) {
    input[key] = JSON.parse(value.replace(/([\w-]+) = /g, '"$1": '));
  }
  return input;
}

/** The image of tests/goldens/transform.py. */
function testImage(height, width) {
  const value = (y, x, c) => {
    if ((Math.trunc(x / 8) + Math.trunc(y / 8)) % 3 === 0) {
      const seed = Math.imul(x, 73856093) ^ Math.imul(y, 19349663) ^ Math.imul(c, 83492791);
      return Math.imul(seed, 2654435761) >>> 24;
    }
    const smooth = (3 * x + 2 * y + 80 * c) % 512;
    return Math.min(smooth, 511 - smooth);
  };
  const read = (left, top, columns, rows) => Uint8ClampedArray.from({ length: 4 * columns * rows }, (_, i) => {
    const pixel = Math.trunc(i / 4);
    return i % 4 === 3 ? 255 : value(top + Math.trunc(pixel / columns), left + (pixel % columns), i % 4);
  });
  return { height, width, read };
}
