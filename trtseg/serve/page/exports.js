// What people take home.

import { file } from "./api.js";
import { el } from "./panel.js";

const KINDS = [
  ["Mask", "black and white PNG, of the photo's size", "mask.png", "png"],
  ["Cutout", "PNG with a transparent ground", "cutout.png", "png"],
  ["Soft cutout", "the same with a soft edge", "cutout.png?soft=1", "png"],
  ["Run lengths", "COCO's RLE, JSON", "rle", "json"],
  ["Polygons", "outlines with their holes, JSON", "polygons", "json"],
];

export function fillExportMenu(menu, editor, page) {
  const layer = editor.active;
  const stem = editor.photo.name.replace(/\.[^.]*$/, "");
  const item = (name, words, path, saved) => {
    const button = el("button", {}, el("span", { textContent: name }), el("small", { textContent: words }));
    button.setAttribute("role", "menuitem");
    button.onclick = () => {
      page.exportMenu(false);
      page.run(save(path, saved));
    };
    return button;
  };
  menu.replaceChildren(
    el("h3", { textContent: layer.name }),
    ...KINDS.map(([name, words, path, ending]) =>
      item(name, words, `${editor.objectPath(layer)}/${path}`, `${stem}-${layer.name}-${name.toLowerCase()}.${ending}`)),
    el("h3", { textContent: "All objects" }),
    item("COCO", "a data set of this photo, JSON", `${editor.path}/coco`, `${stem}-coco.json`),
  );
}

async function save(path, name) {
  const url = URL.createObjectURL(await file(path));
  const link = el("a", { href: url, download: name.replace(/[^\w.-]+/g, "-") });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
