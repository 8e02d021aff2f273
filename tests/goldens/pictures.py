"""Writes images with unusual features, and their colors as decoded by Pillow, to fixtures/media/pictures/.

For each image, `pictures.json` has its size after applying the orientation, and the mean red, green and blue of the four
quadrants (upper left, upper right, lower left, lower right) of its first frame, composited over white.
"""
import json
import pathlib

import numpy as np
from PIL import Image, ImageOps, features

OUT = pathlib.Path(__file__).resolve().parents[2] / "fixtures/media/pictures"
OUT.mkdir(parents=True, exist_ok=True)

y, x = np.mgrid[0:24, 0:32]
color = np.dstack([x * 8, y * 10, 255 - x * 4 - y * 5]).astype(np.uint8)
alpha = np.where(x < 16, 255, 8 * (32 - x)).clip(0, 255).astype(np.uint8)
image = Image.fromarray(color, "RGB")
second = Image.fromarray(color[::-1, ::-1].copy(), "RGB")

image.convert("CMYK").save(OUT / "cmyk.jpg", quality=95)
image.convert("L").save(OUT / "gray.jpg", quality=95)
for orientation in (3, 6):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(OUT / f"turned_{orientation}.jpg", quality=95, subsampling=0, exif=exif)
Image.fromarray(np.dstack([color, alpha]), "RGBA").save(OUT / "alpha.webp", lossless=True)
Image.fromarray(np.dstack([color[..., 0], alpha]), "LA").save(OUT / "gray_alpha.png")
transparent = image.quantize(16, dither=Image.Dither.NONE)
transparent.info["transparency"] = 3
transparent.save(OUT / "palette.png", transparency=3)
image.save(OUT / "animated.gif", save_all=True, append_images=[second], duration=100)
image.save(OUT / "animated.webp", save_all=True, append_images=[second], duration=100, lossless=True)
image.save(OUT / "deflate.tiff", compression="tiff_deflate")
image.save(OUT / "picture.bmp")

expected = {}
for path in sorted(OUT.iterdir()):
    if path.suffix == ".json":
        continue
    image = Image.open(path)
    image.seek(0)
    image = ImageOps.exif_transpose(image).convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    values = np.asarray(image)[..., :3].astype(float)
    h, w = values.shape[0] // 2, values.shape[1] // 2
    quadrants = [values[:h, :w], values[:h, w:], values[h:, :w], values[h:, w:]]
    expected[path.name] = {
        "height": values.shape[0],
        "width": values.shape[1],
        "quarters": [[round(float(v), 3) for v in quadrant.mean((0, 1))] for quadrant in quadrants],
    }
(OUT / "pictures.json").write_text(json.dumps(expected, indent=1) + "\n")
