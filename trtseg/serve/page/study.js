// The page of the user study.

import { ask, file } from "./api.js";
import { Layer } from "./editor.js";
import { Mask } from "./mask.js";
import { el } from "./panel.js";
import { usePointer } from "./pointer.js";
import { View } from "./view.js";

const $ = (id) => document.getElementById(id);
const layer = new Layer({ id: "mask", name: "mask", colour: "#3ea6ff" });
// What the canvas shows and the pointer speaks to: one object, clicks alone.
const editor = {
  photo: null, image: null, objects: [layer], active: layer, pending: [], preview: null, gesture: null,
  cursor: null, tool: "click", positive: true, look: "fill", opacity: 0.45, comparing: false, wanted: null,
  hovered() {},
  say(prompt, shown) {
    if (prompt.type !== "click" || editor.pending.length || state.finished) return;
    editor.pending = shown;
    view.draw();
    const { x, y, positive } = prompt;
    run(ask("POST", `${person()}/clicks`, { x, y, positive }).then(show));
  },
};
const view = new View($("canvas"), editor);
usePointer($("canvas"), view, editor, { hover() {} });
let state = { phase: "welcome" };
let shownTask = null;

const person = () => `/api/study/participants/${sessionStorage.getItem("participant")}`;

async function show(found) {
  const name = `${found.done}-${found.tutorial}`;
  // The next photo is there before its task begins: a click meanwhile would mean the one before.
  const fresh = found.phase === "task" && shownTask !== name;
  const image = fresh ? await createImageBitmap(await file(`/api/study/photos/${found.photo}`)) : editor.image;
  state = found;
  for (const id of ["task", "questions", "done", "welcome"]) $(id).hidden = id !== found.phase;
  const task = found.phase === "task";
  for (const one of document.querySelectorAll(".goal, #count, #next")) one.hidden = !task;
  $("progress").textContent = task ? (found.tutorial ? "Practice" : `Photo ${found.done + 1} of ${found.tasks}`) : "";
  if (found.phase === "questions") questions(found.questions);
  if (!task) return;
  if (fresh) {
    editor.image = image;
    editor.photo = { width: found.width, height: found.height };
    editor.wanted = new Mask(found.wanted);
    shownTask = name;
    view.fit();
  }
  layer.setMask(new Mask(found.rle));
  layer.clicks = found.clicks;
  editor.pending = [];
  const percent = Math.floor(100 * found.iou);
  $("meter").style.width = `${100 * found.iou}%`;
  $("meter").className = found.iou >= found.target ? "reached" : "";
  $("target").style.left = `${100 * found.target}%`;
  $("overlap").value = `${percent} %`;
  $("count").value = `${found.clicks.length} of ${found.limit} clicks`;
  $("next").disabled = !found.finished;
  const words = found.finished
    ? found.iou >= found.target ? "Good. Go on with “Next”." : "That was the last click. Go on with “Next”."
    : found.clicks.length ? "" : "Left button: this belongs to it. Right button: this does not.";
  $("hint").hidden = !words;
  $("hint").textContent = words;
  view.draw();
}

function questions(statements) {
  const form = $("form");
  if (form.children.length) return;
  statements.forEach((text, index) => {
    const row = el("div", {}, el("span", { textContent: "disagree" }));
    for (let value = 1; value <= 5; value++) {
      row.append(el("label", {}, el("input", { type: "radio", name: `q${index}`, value, required: true }), String(value)));
    }
    row.append(el("span", { textContent: "agree" }));
    form.append(el("fieldset", {}, el("legend", { textContent: `${index + 1}. ${text}` }), row));
  });
  form.append(el("button", { className: "primary", textContent: "Finish" }));
  form.onsubmit = (event) => {
    event.preventDefault();
    const answers = statements.map((_, index) => Number(new FormData(form).get(`q${index}`)));
    run(ask("POST", `${person()}/answers`, { answers }).then(show));
  };
}

function run(promise) {
  promise.catch((error) => {
    editor.pending = [];
    view.draw();
    const toast = el("div", { className: "toast", textContent: error.message });
    $("toasts").append(toast);
    setTimeout(() => toast.remove(), 6000);
  });
}

$("start").onclick = () => run((async () => {
  const { participant } = await ask("POST", "/api/study/participants");
  sessionStorage.setItem("participant", participant);
  await show(await ask("GET", person()));
})());
$("next").onclick = () => run(ask("POST", `${person()}/next`).then(show));

for (const one of document.querySelectorAll(".goal, #count, #next")) one.hidden = true;
if (sessionStorage.getItem("participant")) run(ask("GET", person()).then(show));
window.trtseg = { editor, view, state: () => state };
