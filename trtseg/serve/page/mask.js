// Masks: COCO's compressed run lengths, as pixels to tint and as a line to draw.

// Run lengths go down the columns: background first, then object, in turn.
function* lengths(counts) {
  const before = [];
  let value = 0, shift = 0;
  for (let i = 0; i < counts.length; i++) {
    const group = counts.charCodeAt(i) - 48;
    value += (group & 31) * 2 ** shift;
    shift += 5;
    if (group & 32) continue;
    if (group & 16) value -= 2 ** shift;
    if (before.length > 2) value += before[before.length - 2];
    before.push(value);
    yield value;
    value = shift = 0;
  }
}

export class Mask {
  constructor({ size: [height, width], counts }) {
    this.width = width;
    this.height = height;
    this.area = 0;
    const data = (this.data = new Uint8Array(width * height));
    let at = 0, inside = false;
    let x0 = width, x1 = 0, y0 = height, y1 = 0;
    for (const length of lengths(counts)) {
      if (inside && length) {
        this.area += length;
        const end = at + length;
        const first = Math.floor(at / height), last = Math.floor((end - 1) / height);
        x0 = Math.min(x0, first);
        x1 = Math.max(x1, last + 1);
        for (let x = first; x <= last; x++) {
          const low = x === first ? at - x * height : 0;
          const high = x === last ? end - x * height : height;
          if (low < y0) y0 = low;
          if (high > y1) y1 = high;
          for (let y = low, p = low * width + x; y < high; y++, p += width) data[p] = 1;
        }
      }
      at += length;
      inside = !inside;
    }
    this.box = this.area ? { x: x0, y: y0, width: x1 - x0, height: y1 - y0 } : null;
  }

  // A canvas of the box's size in one colour, to be drawn at the box's corner.
  tinted(colour) {
    if (!this.box) return null;
    const { x, y, width, height } = this.box;
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    const pixels = new Uint32Array(image.data.buffer);
    const [r, g, b] = rgb(colour);
    const word = ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
    for (let row = 0; row < height; row++) {
      const from = (y + row) * this.width + x;
      for (let column = 0; column < width; column++) {
        if (this.data[from + column]) pixels[row * width + column] = word;
      }
    }
    context.putImageData(image, 0, 0);
    return canvas;
  }

  // The border between pixels, as closed lines in image pixels (corner 0, 0 is the photo's).
  get outline() {
    if (this.line) return this.line;
    const path = new Path2D();
    if (this.box) {
      const { x, y, width, height } = this.box;
      const at = (column, row) =>
        column >= 0 && row >= 0 && column < this.width && row < this.height
          ? this.data[row * this.width + column] : 0;
      for (let row = y; row <= y + height; row++) {
        let from = -1;
        for (let column = x; column <= x + width; column++) {
          const edge = column < x + width && at(column, row - 1) !== at(column, row);
          if (edge && from < 0) from = column;
          if (!edge && from >= 0) {
            path.moveTo(from, row);
            path.lineTo(column, row);
            from = -1;
          }
        }
      }
      for (let column = x; column <= x + width; column++) {
        let from = -1;
        for (let row = y; row <= y + height; row++) {
          const edge = row < y + height && at(column - 1, row) !== at(column, row);
          if (edge && from < 0) from = row;
          if (!edge && from >= 0) {
            path.moveTo(column, from);
            path.lineTo(column, row);
            from = -1;
          }
        }
      }
    }
    this.line = path;
    return path;
  }
}

export function rgb(colour) {
  const value = parseInt(colour.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}
