"""Pictures of pages with 256 colours: a third of the size, and a page of text has hardly more."""

from __future__ import annotations

import base64
import json
import struct
import zlib

from tests.browser.chromium import Page

# The browser reads its own PNG. The 256 commonest colours stay as they are, the others become the nearest of these.
_SORT = """(async png => {
  const bytes = Uint8Array.from(atob(png), character => character.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes], {type: 'image/png'}));
  const drawing = new OffscreenCanvas(bitmap.width, bitmap.height).getContext('2d');
  drawing.drawImage(bitmap, 0, 0);
  const pixels = drawing.getImageData(0, 0, bitmap.width, bitmap.height).data;
  const counts = new Map();
  const colours = new Uint32Array(pixels.length / 4);
  for (let i = 0; i < colours.length; i++) {
    colours[i] = pixels[4 * i] << 16 | pixels[4 * i + 1] << 8 | pixels[4 * i + 2];
    counts.set(colours[i], (counts.get(colours[i]) ?? 0) + 1);
  }
  const common = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a)).slice(0, 256);
  const places = new Map(common.map((colour, place) => [colour, place]));
  const distance = (a, b) => [16, 8, 0].reduce((sum, bits) => sum + ((a >> bits & 255) - (b >> bits & 255)) ** 2, 0);
  for (const colour of counts.keys()) if (!places.has(colour)) {
    let nearest = 0;
    common.forEach((other, place) => {
      if (distance(colour, other) < distance(colour, common[nearest])) nearest = place;
    });
    places.set(colour, nearest);
  }
  let indexes = '';
  for (const colour of colours) indexes += String.fromCharCode(places.get(colour));
  return [bitmap.width, bitmap.height, common, btoa(indexes)];
})"""


async def with_palette(page: Page, png: bytes) -> bytes:
    """The same picture as PNG with a palette (colour type 3 of RFC 2083); `page` is what it is computed on."""
    width, height, colours, encoded = await page.value(f"{_SORT}({json.dumps(base64.b64encode(png).decode())})")
    indexes = base64.b64decode(encoded)
    lines = b"".join(b"\0" + indexes[start : start + width] for start in range(0, width * height, width))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            (b"PLTE", b"".join(colour.to_bytes(3, "big") for colour in colours)),
            (b"IDAT", zlib.compress(lines, 9)),
            (b"IEND", b""),
        )
    )
