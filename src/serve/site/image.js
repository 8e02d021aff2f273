// From a file to pixels: told by its first bytes, turned as its EXIF says, alpha laid over white.

const FORMATS = [
  ['a JPEG', [0xff, 0xd8, 0xff]],
  ['a PNG', [0x89, 0x50, 0x4e, 0x47]],
  ['a GIF', [0x47, 0x49, 0x46, 0x38]],
  ['a BMP', [0x42, 0x4d]],
  ['a WebP', [0x52, 0x49, 0x46, 0x46, -1, -1, -1, -1, 0x57, 0x45, 0x42, 0x50]],
];

/**
 * Decodes a picture: `{width, height, read, close}`, as `transform` reads it. Pixels have the values of the file, whatever its
 * color profile, as on the server.
 * Throws an Error whose message is a sentence for people.
 */
export async function decode(file, name, limits) {
  if (file.size === 0) throw new Error(`${name} is empty.`);
  if (file.size > limits.picture_megabytes * 2 ** 20) {
    throw new Error(`${name} has more than ${limits.picture_megabytes} MB: take a smaller picture.`);
  }
  const bytes = new Uint8Array(await file.arrayBuffer());
  const format = FORMATS.find(([, magic]) => magic.every((byte, i) => byte === -1 || byte === bytes[i]));
  if (!format) throw new Error(`${name} is not a picture that this page can look at (JPEG, PNG, WebP, GIF, BMP), whatever its name says.`);
  if (format[0] === 'a JPEG') checkJpeg(bytes, name);
  let bitmap;
  try {
    const options = { imageOrientation: 'from-image', colorSpaceConversion: 'none', premultiplyAlpha: 'none' };
    bitmap = await createImageBitmap(file, options);
  } catch {
    throw new Error(`${name} cannot be decoded: it is ${format[0]} by its first bytes, but damaged.`);
  }
  const { width, height } = bitmap;
  if (width * height > limits.megapixels * 1e6) {
    bitmap.close();
    throw new Error(`${name} has ${width}×${height} pixels: at most ${limits.megapixels} million are looked at.`);
  }
  return { width, height, read: (left, top, columns, rows) => overWhite(bitmap, left, top, columns, rows), close: () => bitmap.close() };
}

/** A part of a picture, pixel for pixel: nothing is scaled. */
function overWhite(bitmap, left, top, width, height) {
  const context = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
  context.imageSmoothingEnabled = false;
  context.fillStyle = '#fff';
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, left, top, width, height, 0, 0, width, height);
  return context.getImageData(0, 0, width, height).data;
}

/**
 * Refuses a JPEG that ends before its end marker, the rest of which a browser would fill with gray, and one in print colors, of
 * which every browser makes red, green and blue in its own way.
 */
function checkJpeg(bytes, name) {
  let at = 2;
  while (at + 1 < bytes.length) {
    const marker = bytes[at + 1];
    const inScan = bytes[at] !== 0xff || marker === 0 || marker === 0xff || (marker >= 0xd0 && marker <= 0xd7);
    const isFrame = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (inScan) at += 1;
    else if (marker === 0xd9) return;
    else if (marker === 0x01 || marker === 0xd8) at += 2;
    else if (isFrame && bytes[at + 9] === 4) throw new Error(`${name} is in print colors (CMYK): save it in RGB.`);
    else at += 2 + (bytes[at + 2] << 8 | bytes[at + 3]);
  }
  throw new Error(`${name} cannot be decoded: the picture is cut off, its file ends too early.`);
}
