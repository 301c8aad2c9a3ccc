// The server's API: one function a request, errors in words.

export const parameters = new URLSearchParams(location.search);
export const token = parameters.get("token") ?? "";

export class Refused extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

async function request(method, path, body) {
  const headers = { Authorization: `Bearer ${token}` };
  const binary = body instanceof Blob;
  if (body !== undefined && !binary) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, {
      method,
      headers,
      body: body === undefined || binary ? body : JSON.stringify(body),
    });
  } catch {
    throw new Refused("The server does not answer. What it has answered before is kept.", 0);
  }
  if (answer.ok) return answer;
  let words = `${answer.status} ${answer.statusText}`;
  try {
    words = (await answer.json()).error ?? words;
  } catch { /* it had no words of its own */ }
  throw new Refused(words[0].toUpperCase() + words.slice(1), answer.status);
}

export async function ask(method, path, body) {
  const answer = await request(method, path, body);
  return answer.status === 204 ? null : answer.json();
}

export async function file(path) {
  return (await request("GET", path)).blob();
}

export function previewSocket(path) {
  const scheme = location.protocol === "https:" ? "wss:" : "ws:";
  return new WebSocket(`${scheme}//${location.host}${path}?token=${encodeURIComponent(token)}`);
}
