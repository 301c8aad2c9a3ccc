// The lists: candidates, objects, photos.

import { file } from "./api.js";
import { Mask } from "./mask.js";

const el = (tag, fields = {}, ...children) => {
  const { dataset, ...rest } = fields;
  const made = Object.assign(document.createElement(tag), rest);
  Object.assign(made.dataset, dataset);
  made.append(...children);
  return made;
};
const icon = (name) => {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
};
const $ = (id) => document.getElementById(id);

export function showCandidates(editor) {
  const list = $("candidates");
  const answer = editor.active?.answer;
  const masks = answer?.candidates.masks ?? [];
  $("candidate-count").textContent = masks.length || 6;
  if (!masks.length) {
    const words = "Click on the object: the model's other answers will stand here.";
    list.replaceChildren(el("p", { className: "muted", textContent: words }));
    return;
  }
  if (list.shown === answer && list.colour === editor.active.colour) return;
  list.shown = answer;
  list.colour = editor.active.colour;
  const focused = list.contains(document.activeElement);
  list.replaceChildren(...masks.map((one, index) => {
    const chosen = index === answer.selected;
    const score = `${Math.round(one.score * 100)} %`;
    const button = el("button", { className: "candidate", title: `Candidate ${index + 1}: the model expects ${score} overlap` },
      thumbnail(editor, answer.candidates.region, one), el("b", { textContent: index + 1 }), el("span", { textContent: score }));
    button.setAttribute("role", "radio");
    button.setAttribute("aria-checked", chosen);
    button.setAttribute("aria-label", `Candidate ${index + 1}, ${score}`);
    button.onclick = () => editor.select(index);
    if (chosen && focused) queueMicrotask(() => button.focus());
    return button;
  }));
}

function thumbnail(editor, [x0, y0, x1, y1], one) {
  const ratio = Math.min(2, window.devicePixelRatio || 1);
  const height = 92 * ratio;
  const width = Math.max(64 * ratio, Math.min(200 * ratio, (height * (x1 - x0)) / (y1 - y0)));
  const canvas = el("canvas", { width: Math.round(width), height });
  const c = canvas.getContext("2d");
  c.imageSmoothingQuality = "high";
  c.drawImage(editor.image, x0, y0, x1 - x0, y1 - y0, 0, 0, canvas.width, height);
  c.fillStyle = "#0008"; // what is not selected steps back
  c.fillRect(0, 0, canvas.width, height);
  const mask = new Mask(one.rle);
  if (mask.box) {
    const sx = canvas.width / mask.width, sy = height / mask.height;
    const layer = new OffscreenCanvas(canvas.width, height);
    const l = layer.getContext("2d");
    l.drawImage(mask.tinted("#ffffff"), mask.box.x * sx, mask.box.y * sy, mask.box.width * sx, mask.box.height * sy);
    l.globalCompositeOperation = "source-in";
    l.drawImage(editor.image, x0, y0, x1 - x0, y1 - y0, 0, 0, canvas.width, height);
    l.globalCompositeOperation = "source-atop";
    l.globalAlpha = 0.3;
    l.fillStyle = editor.active.colour;
    l.fillRect(0, 0, canvas.width, height);
    c.drawImage(layer, 0, 0);
    c.setTransform(sx, 0, 0, sy, 0, 0);
    c.lineWidth = 2 / Math.min(sx, sy);
    c.strokeStyle = editor.active.colour;
    c.stroke(mask.outline);
  }
  return canvas;
}

export function showObjects(editor, page) {
  if ($("objects").contains(document.activeElement) && document.activeElement.matches("input")) return;
  const all = editor.photo ? editor.photo.width * editor.photo.height : 1;
  $("objects").replaceChildren(...editor.objects.map((layer) => {
    const colour = el("input", { type: "color", value: layer.colour, title: "Colour" });
    colour.setAttribute("aria-label", `Colour of ${layer.name}`);
    colour.onchange = () => {
      colour.blur();
      page.run(editor.change(layer, { colour: colour.value }));
    };
    const name = el("input", { className: "name", value: layer.name, maxLength: 120 });
    name.setAttribute("aria-label", "Name");
    name.onfocus = () => editor.active !== layer && editor.activate(layer);
    name.onchange = () => {
      name.blur();
      page.run(editor.change(layer, { name: name.value }));
    };
    name.onkeydown = (event) => event.key === "Enter" && name.blur();
    const share = layer.mask?.area ? `${((100 * layer.mask.area) / all).toFixed(1)} %` : "";
    const eye = el("button", { title: layer.visible ? "Hide" : "Show" }, icon(layer.visible ? "eye" : "hidden"));
    eye.setAttribute("aria-label", `${layer.visible ? "Hide" : "Show"} ${layer.name}`);
    eye.onclick = (event) => {
      event.stopPropagation();
      layer.visible = !layer.visible;
      editor.changed();
    };
    const bin = el("button", { title: "Remove" }, icon("bin"));
    bin.setAttribute("aria-label", `Remove ${layer.name}`);
    bin.onclick = (event) => {
      event.stopPropagation();
      page.run(editor.remove(layer));
    };
    const item = el("li", { className: layer === editor.active ? "object active" : "object" },
      colour, name, el("span", { className: "share", textContent: share }), eye, bin);
    item.onclick = (event) => event.target === item && editor.activate(layer);
    return item;
  }));
}

const pictures = new Map();

export function showPhotos(editor, page) {
  $("photos").replaceChildren(...editor.photos.map((photo) => {
    const image = el("img", { alt: "", loading: "lazy" });
    if (!pictures.has(photo.id)) pictures.set(photo.id, file(`/api/photos/${photo.id}/thumbnail`).then(URL.createObjectURL));
    pictures.get(photo.id).then((url) => (image.src = url), () => pictures.delete(photo.id));
    const button = el("button", { className: "photo", title: `${photo.name}, ${photo.width} × ${photo.height}` },
      image, el("span", { textContent: photo.name }));
    button.setAttribute("aria-current", photo.id === editor.photo?.id);
    button.onclick = () => page.run(page.open(photo.id));
    return el("li", {}, button);
  }));
}

export { el };
