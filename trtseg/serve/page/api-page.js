// The OpenAPI document as a page.

import { ask } from "./api.js";
import { el } from "./panel.js";

const block = (value) => el("pre", { textContent: JSON.stringify(value, null, 2) });

function operation(method, path, one) {
  const summary = el("summary", {}, el("b", { textContent: method.toUpperCase() }), el("code", { textContent: path }), el("span", { textContent: one.summary }));
  const facts = { parameters: one.parameters, body: one.requestBody, responses: one.responses };
  return el("details", {}, summary, block(facts));
}

const found = await ask("GET", "/api/openapi.json");
document.getElementById("about").textContent =
  `Version ${found.info.version}. Each request carries the token of the page's address: "Authorization: Bearer TOKEN", or "?token=TOKEN".\n\n${found.info.description}`;
document.getElementById("operations").replaceChildren(
  ...Object.entries(found.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, one]) => operation(method, path, one))),
);
document.getElementById("prompts").replaceChildren(
  ...Object.entries(found.components.schemas).filter(([name]) => name !== "Prompt").map(([name, schema]) =>
    el("details", {}, el("summary", {}, el("code", { textContent: name }), el("span", { textContent: schema.description })), block(schema.properties))),
);
document.getElementById("raw").href = `/api/openapi.json${location.search}`;
