// Calls of the API, with the token of this tab; errors are the service's problems (RFC 9457).

import { token } from "./session.js";

/// A refusal, or a service that does not answer (status 0).
export class Problem extends Error {
  constructor(status, facts) {
    super(facts.detail || facts.title || `HTTP ${status}`);
    this.status = status;
    this.facts = facts;
  }
  get code() {
    return this.facts.code ?? "";
  }
}

/// Called when nobody is taken for the sender of a request.
let refused = () => {};
export function onUnauthorized(handler) {
  refused = handler;
}

export function headers(more) {
  return token() ? { Authorization: `Bearer ${token()}`, ...more } : { ...more };
}

/// - Returns: the answer's JSON, or text; null for none.
export async function call(method, path, body, { headers: more = {}, signal } = {}) {
  const given = { ...more };
  if (body !== undefined) given["Content-Type"] = "application/json";
  if (method === "POST" && !path.includes("dry_run=true")) given["Idempotency-Key"] = uniqueKey();
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: headers(given),
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, { title: "The service does not answer", detail: "The service does not answer." });
  }
  const type = response.headers.get("Content-Type") ?? "";
  const content = response.status === 204 ? null : type.includes("json") && !type.includes("ndjson")
    ? await response.json() : await response.text();
  if (response.ok) return content;
  const problem = new Problem(response.status, typeof content === "object" && content ? content : { title: content });
  if (response.status === 401) refused(problem);
  throw problem;
}

export const get = (path, options) => call("GET", path, undefined, options);

/// Every part of a list, to its end or until there are enough.
export async function list(path, { most = Infinity, limit = 1000 } = {}) {
  const items = [];
  let cursor = null;
  let revision = 0;
  do {
    const part = await get(withQuery(path, { limit, cursor }));
    revision ||= part.revision;
    items.push(...part.items);
    cursor = part.next;
  } while (cursor && items.length < most);
  return { items, revision, next: cursor };
}

export function withQuery(path, values) {
  const pairs = Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== "");
  if (!pairs.length) return path;
  const query = pairs.map(([name, value]) => `${name}=${encodeURIComponent(value)}`).join("&");
  return path + (path.includes("?") ? "&" : "?") + query;
}

/// For a POST that may be sent twice. `randomUUID` is there on secure origins only.
function uniqueKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/// The same call for a shell; the token stays out of it.
export function curl(method, path, body) {
  const words = ["curl"];
  if (token()) words.push('-H "Authorization: Bearer $TOKEN"');
  if (method !== "GET" && !(method === "POST" && body !== undefined)) words.push(`-X ${method}`);
  words.push(quoted(location.origin + path));
  if (body !== undefined) words.push(`-H 'Content-Type: application/json'`, `-d ${quoted(JSON.stringify(body))}`);
  return words.join(" ");
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
