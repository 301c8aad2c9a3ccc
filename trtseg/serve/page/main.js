// The page: builds the parts and tells each of what changed.

import { ask, parameters, token } from "./api.js";
import { Editor } from "./editor.js";
import { fillExportMenu } from "./exports.js";
import { useKeys } from "./keys.js";
import { showCandidates, showObjects, showPhotos, el } from "./panel.js";
import { usePointer } from "./pointer.js";
import { Previews } from "./preview.js";
import { View } from "./view.js";

const $ = (id) => document.getElementById(id);
const editor = new Editor();
const canvas = $("canvas");
const view = new View(canvas, editor);
const previews = new Previews(editor);
const LOOKS = ["fill", "outline", "cutout"];

const check = (buttons, chosen) => {
  for (const button of buttons) button.setAttribute("aria-checked", chosen(button));
};

const page = {
  // Errors of what runs by itself are told.
  run(promise) {
    promise.catch(tell);
  },
  async open(id) {
    await editor.open(id);
    if (editor.photo?.id !== id) return; // another one was opened meanwhile
    const address = new URL(location.href);
    address.searchParams.set("photo", id);
    history.replaceState(null, "", address);
  },
  tool(name) {
    editor.tool = name;
    check(document.querySelectorAll("[data-tool]"), (button) => button.dataset.tool === name);
    canvas.classList.toggle("pan", name === "pan");
    $("radius-row").hidden = name !== "brush";
    previews.hover(null);
    hint();
  },
  sign(positive) {
    editor.positive = positive;
    $("sign-positive").setAttribute("aria-checked", positive);
    $("sign-negative").setAttribute("aria-checked", !positive);
    previews.hover(null);
  },
  look(name) {
    editor.look = name;
    check(document.querySelectorAll("[data-look]"), (button) => button.dataset.look === name);
    view.draw();
  },
  nextLook() {
    page.look(LOOKS[(LOOKS.indexOf(editor.look) + 1) % LOOKS.length]);
  },
  radius(px) {
    $("radius").value = px;
    editor.radius = Number($("radius").value);
    $("radius").nextElementSibling.value = `${editor.radius} px`;
  },
  compare(on) {
    if (editor.comparing === on) return;
    editor.comparing = on;
    view.draw();
  },
  exportMenu(open) {
    if (open && $("export").disabled) return;
    const menu = $("export-menu");
    if (open) fillExportMenu(menu, editor, page);
    menu.hidden = !open;
    $("export").setAttribute("aria-expanded", open);
    if (open) menu.querySelector("button").focus();
  },
  help() {
    $("keys").showModal();
  },
  dialogOpen() {
    return $("keys").open;
  },
};

function tell(error) {
  const toast = el("div", { className: "toast", textContent: error.message });
  $("toasts").append(toast);
  setTimeout(() => toast.remove(), 8000);
  while ($("toasts").children.length > 3) $("toasts").firstChild.remove();
  if (!("status" in error)) console.error(error);
  if (error.status === 0) waitForServer();
}

// A server that was started again has all that was answered; the page takes it up by itself.
let waiting = false;
async function waitForServer() {
  if (waiting) return;
  waiting = true;
  document.body.dataset.server = "away";
  for (;;) {
    await new Promise((done) => setTimeout(done, 700));
    if (await fetch("/health").then((answer) => answer.ok, () => false)) break;
  }
  waiting = false;
  document.body.dataset.server = "here";
  for (const layer of editor.objects) await editor.refresh(layer).catch(tell);
}

function hint() {
  let words = "";
  if (!token) words = "Open the link that the server printed: it carries the key to this page.";
  else if (!editor.photo) words = editor.photos.length ? "" : "Open a photo, or drop one here.";
  else if (!editor.active?.answer) words = "Reading the photo…";
  else if (!editor.active.used) {
    words = {
      click: `Click on the object you want${editor.objects.length > 1 ? " next" : ""}.`,
      box: "Draw a box around the object.",
      brush: "Paint over a part of the object.",
      lasso: "Draw a line around the object.",
      pan: "Drag to move the photo.",
    }[editor.tool];
  }
  $("hint").hidden = !words;
  $("hint").textContent = words;
}

function status() {
  const { timing, active, photo } = editor;
  const parts = [];
  if (timing) {
    const took = (ms) => `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
    const what = timing.what === "prompts" ? "answer" : timing.what;
    parts.push(`${what} ${took(timing.computed)}`);
    parts.push(`on the way ${took(Math.max(0, timing.way))}`);
    if (timing.drawn) parts.push(`shown after ${took(timing.drawn)}`);
  } else if (active?.answer) parts.push(`photo encoded in ${Math.round(active.answer.timing.encode_ms)} ms`);
  $("timing").textContent = parts.join(" · ");
  const share = active?.mask ? (100 * active.mask.area) / (photo.width * photo.height) : 0;
  $("covered").textContent = active?.mask?.area ? `${active.name}: ${share.toFixed(1)} % of the photo` : "";
}

editor.failed = tell;
editor.hovered = (point) => {
  $("position").textContent = point ? `${Math.round(point.x)}, ${Math.round(point.y)}` : "";
};
editor.changed = (what = "") => {
  if (what === "preview") return view.draw();
  const { active } = editor;
  if (what === "photo") {
    $("photo-name").textContent = editor.photo.name;
    document.title = `${editor.photo.name} – trtseg`;
    view.fit();
  }
  if (what === "answer") {
    previews.forget();
    const { timing } = editor;
    if (timing && !timing.drawn) {
      requestAnimationFrame(() => requestAnimationFrame(() => {
        timing.drawn = performance.now() - timing.came;
        status();
      }));
    }
  }
  $("undo").disabled = !active?.answer?.can_undo;
  $("redo").disabled = !active?.answer?.can_redo;
  $("reset").disabled = !active?.answer?.can_undo;
  $("export").disabled = !active?.mask?.area;
  showObjects(editor, page);
  showCandidates(editor);
  if (what === "photo" || what === "") showPhotos(editor, page);
  hint();
  status();
  view.draw();
};
view.onzoom = () => {
  $("zoom").value = `${Math.round(view.scale * 100)} %`;
};

usePointer(canvas, view, editor, previews);
useKeys(canvas, view, editor, page);
for (const button of document.querySelectorAll("[data-tool]")) button.onclick = () => page.tool(button.dataset.tool);
for (const button of document.querySelectorAll("[data-look]")) button.onclick = () => page.look(button.dataset.look);
$("undo").onclick = () => editor.undo();
$("redo").onclick = () => editor.redo();
$("reset").onclick = () => editor.reset();
$("sign-positive").onclick = () => page.sign(true);
$("sign-negative").onclick = () => page.sign(false);
$("new-object").onclick = () => page.run(editor.nextObject());
$("fit").onclick = () => view.fit();
$("zoom-in").onclick = () => view.zoom(1.25);
$("zoom-out").onclick = () => view.zoom(0.8);
$("help").onclick = () => page.help();
$("opacity").oninput = ({ target }) => {
  editor.opacity = target.value / 100;
  target.nextElementSibling.value = `${target.value} %`;
  view.draw();
};
$("radius").oninput = ({ target }) => page.radius(target.value);
$("previews").onchange = ({ target }) => {
  editor.previews = target.checked;
  previews.hover(null);
};
for (const name of ["pointerdown", "keydown"]) {
  $("compare").addEventListener(name, (event) => {
    if (name === "pointerdown" || event.key === "Enter" || event.key === " ") page.compare(true);
  });
}
for (const name of ["pointerup", "pointerleave", "keyup", "blur"]) {
  $("compare").addEventListener(name, () => page.compare(false));
}
$("theme").onclick = () => {
  const root = document.documentElement;
  const dark = getComputedStyle(root).colorScheme.startsWith("dark");
  root.dataset.theme = dark ? "light" : "dark";
  localStorage.setItem("theme", root.dataset.theme);
};
if (localStorage.getItem("theme")) document.documentElement.dataset.theme = localStorage.getItem("theme");
$("export").onclick = () => page.exportMenu($("export-menu").hidden);
document.addEventListener("pointerdown", (event) => {
  if (!event.target.closest(".menu")) page.exportMenu(false);
});
$("export-menu").onkeydown = (event) => {
  const buttons = [...event.currentTarget.querySelectorAll("button")];
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step) buttons.at((buttons.indexOf(document.activeElement) + step) % buttons.length).focus();
  else if (event.key === "Escape") {
    page.exportMenu(false);
    $("export").focus();
  } else return;
  event.preventDefault();
};
$("open").onclick = () => $("files").click();
$("files").onchange = ({ target }) => {
  page.run(editor.upload([...target.files]));
  target.value = "";
};
let dragged = 0;
const drop = (event) => {
  event.preventDefault();
  dragged += { dragenter: 1, dragleave: -1 }[event.type] ?? 0;
  if (event.type === "drop") {
    dragged = 0;
    page.run(editor.upload([...event.dataTransfer.files]));
  }
  $("drop").hidden = dragged <= 0;
};
for (const name of ["dragenter", "dragleave", "dragover", "drop"]) document.addEventListener(name, drop);
document.addEventListener("paste", (event) => {
  const files = [...event.clipboardData.files];
  if (files.length) page.run(editor.upload(files));
});

async function start() {
  hint();
  if (!token) return;
  const about = await ask("GET", "/api/about");
  $("model").textContent = `${about.model} · ${about.runs_on}`;
  for (const kind of ["box", "lasso"]) document.querySelector(`[data-tool=${kind}]`).hidden = !about.accepts.includes(kind);
  await editor.listPhotos();
  const wanted = parameters.get("photo") ?? editor.photos[0]?.id;
  if (wanted) await page.open(wanted);
  hint();
}
$("api").href = `/page/api.html?token=${encodeURIComponent(token)}`;
window.trtseg = { editor, view }; // for people who look, and for the tests
page.run(start());
