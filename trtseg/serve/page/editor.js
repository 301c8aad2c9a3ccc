// What is being edited: the photo, its objects, and what is said about them.

import { ask, file } from "./api.js";
import { Mask } from "./mask.js";

const pathOf = (id) => `/api/photos/${id}`;

// One object as the page shows it, and the path of its photo, whichever is shown by now.
export class Layer {
  constructor(record, photoPath) {
    this.photoPath = photoPath;
    this.visible = true;
    this.mask = null;
    this.clicks = [];
    this.answer = null;
    this.take(record);
  }

  take({ id, name, colour }) {
    this.id = id;
    this.name = name;
    if (colour !== this.colour) this.tinted = null;
    this.colour = colour;
  }

  show(answer) {
    this.take(answer.object);
    this.answer = answer;
    this.clicks = answer.clicks;
    this.setMask(new Mask(answer.rle));
  }

  setMask(mask) {
    this.mask = mask;
    this.tinted = this.cut = null;
  }

  tint() {
    this.tinted ??= this.mask.tinted(this.colour);
    return this.tinted;
  }

  get used() {
    return this.answer !== null && this.answer.object.prompts.length > 0;
  }
}

export class Editor {
  constructor() {
    this.photo = null;
    this.image = null;
    this.objects = [];
    this.active = null;
    this.pending = []; // clicks that are not answered yet
    this.preview = null;
    this.gesture = null; // a box, stroke or lasso being drawn
    this.cursor = null; // of the keyboard
    this.tool = "click";
    this.positive = true;
    this.look = "fill";
    this.opacity = 0.45;
    this.radius = 12;
    this.comparing = false;
    this.previews = true;
    this.timing = null;
    this.photos = [];
    this.changed = () => {}; // the page is told
    this.failed = () => {};
    this.queue = Promise.resolve();
    this.opening = 0; // counts the photos that were asked for: only the last one is shown
  }

  get path() {
    return pathOf(this.photo.id);
  }

  objectPath(layer) {
    return `${layer.photoPath}/objects/${layer.id}`;
  }

  // The layer of the same object by now: another where its photo was opened again, or none.
  current(layer) {
    return this.objects.find((one) => this.objectPath(one) === this.objectPath(layer));
  }

  async listPhotos() {
    this.photos = (await ask("GET", "/api/photos")).photos;
    this.changed();
  }

  async open(id) {
    const opening = ++this.opening;
    const photo = await ask("GET", pathOf(id));
    if (opening !== this.opening) return;
    const blob = await file(`${pathOf(id)}/image`);
    if (opening !== this.opening) return;
    const image = await createImageBitmap(blob);
    if (opening !== this.opening) return;
    this.photo = photo;
    this.image = image;
    this.preview = this.cursor = this.timing = this.gesture = null;
    this.pending = [];
    this.objects = photo.objects.map((record) => new Layer(record, this.path));
    this.active = this.objects.at(-1) ?? null;
    this.changed("photo");
    if (!this.active) await this.addObject();
    for (const layer of this.objects) {
      if (opening !== this.opening) return;
      if (!layer.answer) await this.refresh(layer);
    }
  }

  async upload(files) {
    let last = null;
    for (const one of files) {
      try {
        last = await ask("POST", `/api/photos?name=${encodeURIComponent(one.name)}`, one);
      } catch (error) {
        error.message = `${one.name}: ${error.message}`;
        this.failed(error);
      }
    }
    await this.listPhotos();
    if (last) await this.open(last.id);
  }

  async addObject() {
    const { photo, path } = this;
    const layer = new Layer(await ask("POST", `${path}/objects`, {}), path);
    if (photo !== this.photo) return;
    this.objects.push(layer);
    this.activate(layer);
    await this.refresh(layer);
  }

  // The next object: a new one, unless the present one still waits for its first click.
  async nextObject() {
    if (!this.photo) return;
    const empty = this.objects.find((layer) => layer.answer && !layer.used);
    if (empty) this.activate(empty);
    else await this.addObject();
  }

  activate(layer) {
    this.active = layer;
    this.preview = null;
    this.changed("active");
  }

  step(by) {
    if (!this.objects.length) return;
    const at = this.objects.indexOf(this.active);
    this.activate(this.objects[(at + by + this.objects.length) % this.objects.length]);
  }

  async refresh(layer) {
    layer.show(await ask("GET", this.objectPath(layer)));
    this.changed("answer");
  }

  async change(layer, fields) {
    layer.take(await ask("PATCH", this.objectPath(layer), fields));
    layer.cut = null;
    this.changed();
  }

  async remove(layer) {
    await ask("DELETE", this.objectPath(layer));
    const current = this.current(layer);
    if (!current) return;
    this.objects = this.objects.filter((one) => one !== current);
    if (this.active === current) this.active = this.objects.at(-1) ?? null;
    if (!this.active) await this.addObject();
    this.changed("active");
  }

  // Requests go one after the other, so that answers come in the order of the clicks.
  say(prompt, shown = []) {
    const layer = this.active;
    if (!layer) return this.queue;
    this.pending.push(...shown);
    if (prompt.type === "click") this.promote(layer, prompt);
    this.preview = null;
    this.changed();
    return this.request(layer, "prompts", prompt, shown);
  }

  undo() {
    if (this.active?.answer?.can_undo) this.request(this.active, "undo");
  }

  redo() {
    if (this.active?.answer?.can_redo) this.request(this.active, "redo");
  }

  reset() {
    if (this.active?.answer?.can_undo) this.request(this.active, "reset");
  }

  select(index) {
    const count = this.active?.answer?.candidates.masks.length ?? 0;
    if (index < count && index !== this.active.answer.selected) this.say({ type: "select", index });
  }

  request(layer, what, body, shown = []) {
    this.queue = this.queue.then(async () => {
      const asked = performance.now();
      try {
        const answer = await ask("POST", `${this.objectPath(layer)}/${what}`, body);
        const came = performance.now();
        const current = this.current(layer);
        if (current) {
          current.show(answer);
          const computed = answer.timing.answer_ms;
          this.timing = { what, computed, way: came - asked - computed, came };
        }
      } catch (error) {
        this.failed(error);
        const current = this.current(layer);
        if (current) await this.refresh(current).catch(() => {});
      }
      this.pending = this.pending.filter((click) => !shown.includes(click));
      this.changed("answer");
    });
    return this.queue;
  }

  // A click where the preview was computed shows it at once; the answer replaces it.
  promote(layer, { x, y, positive }) {
    const { preview } = this;
    if (!preview || preview.layer !== layer || preview.positive !== positive) return;
    if (Math.hypot(preview.x - x, preview.y - y) < 1.5) layer.setMask(preview.mask);
  }
}
