// Decodes image files: format by magic bytes, orientation by EXIF, transparent pixels on white.

/** Names and magic bytes; -1 matches any byte. */
const FORMATS = [
  ['JPEG', [0xff, 0xd8, 0xff]],
  ['PNG', [0x89, 0x50, 0x4e, 0x47]],
  ['GIF', [0x47, 0x49, 0x46, 0x38]],
  ['BMP', [0x42, 0x4d]],
  ['WebP', [0x52, 0x49, 0x46, 0x46, -1, -1, -1, -1, 0x57, 0x45, 0x42, 0x50]],
];

/**
 * Decodes an image. Returns `{width, height, read, close}`, the input of `transform`. Like the server, it ignores color
 * profiles: pixels have the values stored in the file. Throws an Error whose message can be shown to users.
 */
export async function decode(file, name, limits) {
  if (file.size === 0) throw new Error(`${name} is empty.`);
  if (file.size > limits.image_megabytes * 2 ** 20) {
    throw new Error(`${name} is larger than ${limits.image_megabytes} MB: choose a smaller image.`);
  }
  const bytes = new Uint8Array(await file.arrayBuffer());
  const format = FORMATS.find(([, magic]) => magic.every((byte, i) => byte === -1 || byte === bytes[i]))?.[0];
  if (!format) throw new Error(`${name} is not a supported image (JPEG, PNG, WebP, GIF, BMP); the format is detected from the content, not the file name.`);
  if (format === 'JPEG') checkJpeg(bytes, name);
  let bitmap;
  try {
    const options = { imageOrientation: 'from-image', colorSpaceConversion: 'none', premultiplyAlpha: 'none' };
    bitmap = await createImageBitmap(file, options);
  } catch {
    throw new Error(`${name} cannot be decoded: the ${format} data are damaged.`);
  }
  const { width, height } = bitmap;
  if (width * height > limits.megapixels * 1e6) {
    bitmap.close();
    throw new Error(`${name} has ${width}×${height} pixels: the limit is ${limits.megapixels} million.`);
  }
  return { width, height, read: (left, top, columns, rows) => readOnWhite(bitmap, left, top, columns, rows), close: () => bitmap.close() };
}

/** Returns the RGBA pixels of a region of the bitmap, composited on white and not scaled. */
function readOnWhite(bitmap, left, top, width, height) {
  const context = new OffscreenCanvas(width, height).getContext('2d', { willReadFrequently: true });
  context.imageSmoothingEnabled = false;
  context.fillStyle = '#fff';
  context.fillRect(0, 0, width, height);
  context.drawImage(bitmap, left, top, width, height, 0, 0, width, height);
  return context.getImageData(0, 0, width, height).data;
}

/**
 * Throws if a JPEG has no end marker, because browsers fill the missing part with gray, or if it is CMYK, because
 * browsers differ in the conversion to RGB.
 */
function checkJpeg(bytes, name) {
  let offset = 2;
  while (offset + 1 < bytes.length) {
    const marker = bytes[offset + 1];
    const inScan = bytes[offset] !== 0xff || marker === 0 || marker === 0xff || (marker >= 0xd0 && marker <= 0xd7);
    const isFrameHeader = marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker);
    if (inScan) offset += 1;
    else if (marker === 0xd9) return;
    else if (marker === 0x01 || marker === 0xd8) offset += 2;
    else if (isFrameHeader && bytes[offset + 9] === 4) throw new Error(`${name} has CMYK colors: save it as RGB.`);
    else offset += 2 + (bytes[offset + 2] << 8 | bytes[offset + 3]);
  }
  throw new Error(`${name} cannot be decoded: the file is truncated.`);
}
