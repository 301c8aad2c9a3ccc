// The photo on the canvas: zoom, pan, and the drawing of everything on it.

const LEAST = 0.02, MOST = 40;

export class View {
  constructor(canvas, state) {
    this.canvas = canvas;
    this.state = state;
    this.context = canvas.getContext("2d");
    this.scale = 1;
    this.x = this.y = 0; // of the photo's corner, in CSS pixels of the canvas
    this.fitted = true;
    this.asked = false;
    this.onzoom = () => {};
    new ResizeObserver(() => this.resize()).observe(canvas);
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    const { clientWidth, clientHeight } = this.canvas;
    this.canvas.width = Math.max(1, Math.round(clientWidth * ratio));
    this.canvas.height = Math.max(1, Math.round(clientHeight * ratio));
    if (this.fitted) this.fit();
    this.draw();
  }

  fit() {
    const { photo } = this.state;
    if (!photo) return;
    const { clientWidth, clientHeight } = this.canvas, gap = 24;
    this.scale = Math.max(LEAST, Math.min((clientWidth - gap) / photo.width, (clientHeight - gap) / photo.height, 8));
    this.x = (clientWidth - photo.width * this.scale) / 2;
    this.y = (clientHeight - photo.height * this.scale) / 2;
    this.fitted = true;
    this.onzoom();
    this.draw();
  }

  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    const scale = Math.max(LEAST, Math.min(MOST, this.scale * factor));
    this.x = x - ((x - this.x) * scale) / this.scale;
    this.y = y - ((y - this.y) * scale) / this.scale;
    this.scale = scale;
    this.fitted = false;
    this.onzoom();
    this.draw();
  }

  pan(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.fitted = false;
    this.draw();
  }

  // CSS pixels of the canvas -> the API's image pixels, 0, 0 being the first pixel's centre.
  toImage(x, y) {
    return { x: (x - this.x) / this.scale - 0.5, y: (y - this.y) / this.scale - 0.5 };
  }

  toScreen({ x, y }) {
    return { x: (x + 0.5) * this.scale + this.x, y: (y + 0.5) * this.scale + this.y };
  }

  inside({ x, y }) {
    const { photo } = this.state;
    return photo && x >= -0.5 && y >= -0.5 && x <= photo.width - 0.5 && y <= photo.height - 0.5;
  }

  // Draws with the next frame, once however often it is asked.
  draw() {
    if (this.asked) return;
    this.asked = true;
    requestAnimationFrame(() => {
      this.asked = false;
      this.drawNow();
    });
  }

  drawNow() {
    const { context: c, canvas, state } = this;
    const ratio = window.devicePixelRatio || 1;
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.clearRect(0, 0, canvas.width, canvas.height);
    if (!state.image) return;
    c.setTransform(this.scale * ratio, 0, 0, this.scale * ratio, this.x * ratio, this.y * ratio);
    c.imageSmoothingEnabled = this.scale * ratio < 3;
    c.imageSmoothingQuality = "high";
    const shown = state.comparing ? [] : state.objects.filter((one) => one.visible);
    if (state.look === "cutout" && !state.comparing && shown.some((one) => one.mask?.box)) {
      this.checks(ratio);
      for (const one of shown) this.cutout(one);
    } else {
      c.drawImage(state.image, 0, 0);
      for (const one of shown) if (one !== state.active) this.layer(one, 1.5);
      if (state.active && shown.includes(state.active)) this.layer(state.active, 2.4);
    }
    if (state.comparing) return;
    if (state.wanted) this.line(state.wanted.outline, "#ffe45c", 2.2, [7, 5]);
    if (state.preview && state.active?.visible) this.preview(state.preview, state.active.colour);
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    if (state.active?.visible) for (const click of state.active.clicks) this.dot(click, false);
    for (const click of state.pending) this.dot(click, true);
    if (state.gesture) this.gesture(state.gesture);
    if (state.cursor) this.crosshair(state.cursor);
  }

  layer(one, width) {
    const { context: c, state } = this;
    if (!one.mask?.box) return;
    if (state.look === "fill") {
      c.globalAlpha = state.opacity;
      c.drawImage(one.tint(), one.mask.box.x, one.mask.box.y);
      c.globalAlpha = 1;
    }
    this.line(one.mask.outline, one.colour, width);
  }

  line(path, colour, width, dash = []) {
    const { context: c } = this;
    c.lineCap = dash.length ? "butt" : "square";
    c.setLineDash([]);
    c.strokeStyle = "#000a";
    c.lineWidth = (width + 2) / this.scale;
    c.stroke(path);
    c.strokeStyle = colour;
    c.lineWidth = width / this.scale;
    c.setLineDash(dash.map((length) => length / this.scale));
    c.stroke(path);
    c.setLineDash([]);
  }

  preview(preview, colour) {
    const { context: c } = this;
    if (!preview.mask.box) return;
    preview.tint ??= preview.mask.tinted(colour);
    c.globalAlpha = 0.3;
    c.drawImage(preview.tint, preview.mask.box.x, preview.mask.box.y);
    c.globalAlpha = 1;
    this.line(preview.mask.outline, "#ffffff", 1.4);
  }

  checks(ratio) {
    const { context: c, state } = this;
    if (!this.pattern) {
      const tile = new OffscreenCanvas(16, 16);
      const t = tile.getContext("2d");
      t.fillStyle = "#ffffff";
      t.fillRect(0, 0, 16, 16);
      t.fillStyle = "#c9ced6";
      t.fillRect(0, 0, 8, 8);
      t.fillRect(8, 8, 8, 8);
      this.pattern = c.createPattern(tile, "repeat");
    }
    c.save();
    c.setTransform(ratio, 0, 0, ratio, 0, 0);
    c.fillStyle = this.pattern;
    c.fillRect(this.x, this.y, state.photo.width * this.scale, state.photo.height * this.scale);
    c.restore();
  }

  cutout(one) {
    if (!one.mask?.box) return;
    const { x, y, width, height } = one.mask.box;
    if (!one.cut) {
      one.cut = new OffscreenCanvas(width, height);
      const c = one.cut.getContext("2d");
      c.drawImage(one.tint(), 0, 0);
      c.globalCompositeOperation = "source-in";
      c.drawImage(this.state.image, x, y, width, height, 0, 0, width, height);
    }
    this.context.drawImage(one.cut, x, y);
  }

  dot(click, pending) {
    const { context: c } = this;
    const { x, y } = this.toScreen(click);
    c.beginPath();
    c.arc(x, y, pending ? 7.5 : 6, 0, 2 * Math.PI);
    c.lineWidth = 4.5;
    c.strokeStyle = "#000a";
    c.stroke();
    c.lineWidth = 2.4;
    c.strokeStyle = "#fff";
    c.stroke();
    c.fillStyle = click.positive ? "#22b86c" : "#f04444";
    if (pending) c.globalAlpha = 0.45;
    c.fill();
    c.globalAlpha = 1;
    c.strokeStyle = "#fff";
    c.lineWidth = 1.8;
    c.lineCap = "round";
    c.beginPath(); // a plus or a minus: colour is not all that tells them apart
    c.moveTo(x - 2.8, y);
    c.lineTo(x + 2.8, y);
    if (click.positive) {
      c.moveTo(x, y - 2.8);
      c.lineTo(x, y + 2.8);
    }
    c.stroke();
  }

  gesture({ kind, points, positive, radius }) {
    const { context: c } = this;
    const at = points.map((point) => this.toScreen(point));
    const colour = positive ? "#2fd07f" : "#ff5d5d";
    c.beginPath();
    if (kind === "box") {
      const [a, b] = [at[0], at[at.length - 1]];
      c.rect(a.x, a.y, b.x - a.x, b.y - a.y);
    } else {
      at.forEach(({ x, y }, index) => (index ? c.lineTo(x, y) : c.moveTo(x, y)));
      if (kind === "lasso") c.closePath();
      if (at.length === 1) c.lineTo(at[0].x + 0.1, at[0].y);
    }
    if (kind === "brush") {
      c.lineCap = c.lineJoin = "round";
      c.globalAlpha = 0.55;
      c.strokeStyle = colour;
      c.lineWidth = 2 * radius * this.scale;
      c.stroke();
      c.globalAlpha = 1;
      return;
    }
    c.fillStyle = "#ffffff22";
    c.fill();
    for (const [stroke, width] of [["#000a", 4], ["#fff", 2]]) {
      c.strokeStyle = stroke;
      c.lineWidth = width;
      c.stroke();
    }
  }

  crosshair(point) {
    const { context: c } = this;
    const { x, y } = this.toScreen(point);
    c.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      c.moveTo(x + 5 * dx, y + 5 * dy);
      c.lineTo(x + 18 * dx, y + 18 * dy);
    }
    for (const [stroke, width] of [["#000", 4.5], ["#fff", 2]]) {
      c.strokeStyle = stroke;
      c.lineWidth = width;
      c.stroke();
    }
  }
}
