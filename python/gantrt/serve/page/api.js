// The HTTP API as functions. Every error is an ApiError whose message a person can read.

export class ApiError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

async function failure(status, text) {
  try {
    const { code, message, retry_after: wait } = JSON.parse(text).error;
    return new ApiError(status, code, wait ? `${message} (try again in ${wait} s)` : message);
  } catch {
    return new ApiError(status, "unknown", `the server answered ${status}`);
  }
}

async function ask(method, path, options = {}) {
  let response;
  try {
    response = await fetch(path, { method, ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "the server cannot be reached");
  }
  if (!response.ok) throw await failure(response.status, await response.text());
  return response;
}

export const engines = async () => (await ask("GET", "/api/engines")).json();

export const logIn = (token) =>
  ask("POST", "/api/session", { headers: { "content-type": "application/json" }, body: JSON.stringify({ token }) });

const path = (engine, what) => `/api/engines/${encodeURIComponent(engine)}/${what}`;

export async function translatePicture(engine, file, signal) {
  const headers = { "content-type": "application/octet-stream" };
  return (await ask("POST", path(engine, "pictures"), { headers, body: file, signal })).blob();
}

// XMLHttpRequest, because fetch does not say how far an upload is.
export function beginClip(engine, file, signal, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", path(engine, "clips"));
    request.setRequestHeader("content-type", "application/octet-stream");
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onload = async () =>
      request.status === 202
        ? resolve(JSON.parse(request.responseText))
        : reject(await failure(request.status, request.responseText));
    request.onerror = () => reject(new ApiError(0, "unreachable", "the server cannot be reached, or takes no more of this file"));
    request.onabort = () => reject(new DOMException("aborted", "AbortError"));
    signal.addEventListener("abort", () => request.abort());
    request.send(file);
  });
}

export const clip = async (id, signal) => (await ask("GET", `/api/clips/${id}`, { signal })).json();
export const clipResult = (id) => `/api/clips/${id}/result`;
export const forgetClip = (id) => ask("DELETE", `/api/clips/${id}`).catch(() => {});

export function liveAddress(engine, keep) {
  return `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${path(engine, "live")}?keep=${keep}`;
}
