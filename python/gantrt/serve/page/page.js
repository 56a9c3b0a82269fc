// What the page does: choose an engine, drop a file or start the camera, look at before and after, take it along.

import * as api from "./api.js";
import { Camera } from "./camera.js";
import * as compare from "./compare.js";

const $ = (id) => document.getElementById(id);
const POLL = 400; // milliseconds between two looks at a clip

let limits = null;
let job = null; // what is under way: an AbortController
let source = null; // the file that is shown
let camera = null;
let clipId = null;
let addresses = []; // of blobs, to be given back

const megabytes = (bytes) => `${Math.round(bytes / 1e6)} MB`;
const milliseconds = (value) => (Number.isFinite(value) ? `${value.toFixed(value < 10 ? 1 : 0)} ms` : "–");

function say(text) {
  $("status").textContent = text;
}

function complain(text) {
  $("alert").textContent = text;
  $("alert").hidden = !text;
}

function reveal(ids, shown) {
  for (const id of ids) $(id).hidden = !shown;
}

function blobAddress(blob) {
  const address = URL.createObjectURL(blob);
  addresses.push(address);
  return address;
}

// ---- Start: engines, or the token first.

async function begin() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) {
    history.replaceState(null, "", location.pathname); // a token has no place in the history
    await api.logIn(token).catch((error) => complain(error.message));
  }
  try {
    const { engines, limits: known } = await api.engines();
    limits = known;
    $("engine").replaceChildren(...engines.map(option));
    $("engine").disabled = false;
    reveal(["engines"], true);
    $("takes").textContent = `PNG, JPEG, WebP to ${megabytes(limits.picture_bytes)}` +
      (limits.clips ? `; MP4, MOV, WebM, MKV, GIF to ${limits.clip_seconds} s and ${megabytes(limits.clip_bytes)}` : "");
    reveal(["login"], false);
    reveal(["sources"], true);
  } catch (error) {
    if (error.status !== 401) return complain(error.message);
    reveal(["login"], true);
    $("token").focus();
  }
}

function option({ name, family, direction, height, width, precision }) {
  const about = [family !== "unknown" && family, direction, height && `${width}×${height}`, precision].filter(Boolean);
  return new Option(about.length ? `${name} (${about.join(", ")})` : name, name);
}

$("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  complain("");
  try {
    await api.logIn($("token").value);
    $("token").value = "";
    await begin();
    $("file").focus();
  } catch (error) {
    complain(error.message);
    $("token").select();
  }
});

// ---- Files.

function clear() {
  job?.abort();
  job = null;
  camera?.stop();
  if (clipId) api.forgetClip(clipId);
  clipId = null;
  addresses.forEach((address) => URL.revokeObjectURL(address));
  addresses = [];
  compare.mirror(false);
  complain("");
  say("");
  reveal(["result", "work", "player", "download"], false);
}

function working(label, done) {
  $("work-label").textContent = label;
  if (done === undefined) $("work-bar").removeAttribute("value");
  else $("work-bar").value = done;
  reveal(["work"], true);
}

async function open(file) {
  clear();
  source = file;
  const isClip = file.type.startsWith("video/") || file.type === "image/gif" || /\.(mkv|mp4|mov|webm|gif)$/i.test(file.name);
  const most = isClip ? limits.clip_bytes : limits.picture_bytes;
  if (file.size > most) return complain(`${file.name} has ${megabytes(file.size)}; at most ${megabytes(most)}`);
  if (isClip && !limits.clips) return complain("this server takes pictures only");
  const mine = (job = new AbortController());
  try {
    if (isClip) await translateClip(file, mine.signal);
    else await translatePicture(file, mine.signal);
  } catch (error) {
    if (error.name !== "AbortError") complain(error.message);
  } finally {
    if (job === mine) {
      job = null;
      reveal(["work"], false);
    }
  }
}

const named = (file, suffix) => `${file.name.replace(/\.[^.]*$/, "")}-translated.${suffix}`;

async function translatePicture(file, signal) {
  working("Translating");
  const started = performance.now();
  const translated = await api.translatePicture($("engine").value, file, signal);
  const took = performance.now() - started;
  const images = [file, translated].map((blob, i) => Object.assign(new Image(), {
    src: blobAddress(blob), alt: i ? `${file.name}, translated` : `${file.name}, as it was`, draggable: false }));
  await Promise.all(images.map((image) => image.decode().catch(() => {})));
  signal.throwIfAborted();
  finish(images, images[1].naturalWidth, images[1].src, named(file, translated.type.replace("image/", "").replace("jpeg", "jpg")));
  say(`${images[1].naturalWidth}×${images[1].naturalHeight}, ${milliseconds(took)} from here and back.`);
}

async function translateClip(file, signal) {
  const { id } = await api.beginClip($("engine").value, file, signal, (done) => working("Uploading", done));
  clipId = id;
  let clip;
  for (;;) {
    clip = await api.clip(id, signal);
    if (clip.state === "done" || clip.state === "failed") break;
    const of = clip.frames_total ? ` of ${clip.frames_total}` : "";
    working(clip.state === "queued" ? "Waiting for other clips" : `Translating frame ${clip.frames_done}${of}`,
      clip.frames_total ? clip.frames_done / clip.frames_total : undefined);
    await new Promise((resolve) => setTimeout(resolve, POLL));
  }
  if (clip.state === "failed") throw new api.ApiError(0, "failed", clip.error);
  const isGif = file.type === "image/gif";
  const first = isGif ? Object.assign(new Image(), { src: blobAddress(file), alt: "" }) : video(blobAddress(file), "as it was");
  first.muted = true;
  const second = video(api.clipResult(id), "translated");
  await new Promise((resolve, reject) => {
    second.onloadeddata = resolve;
    second.onerror = () => reject(new Error("this browser cannot play the translated clip; download it"));
  }).catch((error) => complain(error.message));
  signal.throwIfAborted();
  finish([first, second], second.videoWidth || 640, api.clipResult(id), named(file, clip.media_type.replace("video/", "")));
  play(first, second);
  say(clip.warning ?? `${clip.frames_done} frames.`);
}

const video = (address, label) => Object.assign(document.createElement("video"), {
  src: address, playsInline: true, loop: true, preload: "auto", ariaLabel: `The clip, ${label}` });

function finish([first, second], width, address, name) {
  compare.fit(width);
  compare.show(first, second);
  Object.assign($("download"), { href: address, download: name });
  reveal(["result", "download"], true);
}

// The translated clip leads, the other follows.
function play(first, second) {
  const follows = first instanceof HTMLVideoElement;
  const seek = $("seek");
  reveal(["player"], true);
  const label = () => {
    $("play").textContent = second.paused ? "Play" : "Pause";
    $("play").setAttribute("aria-pressed", String(!second.paused));
  };
  $("play").onclick = () => (second.paused ? second.play() : second.pause());
  second.onplay = () => { label(); if (follows) first.play().catch(() => {}); };
  second.onpause = () => { label(); if (follows) first.pause(); };
  second.ontimeupdate = () => {
    if (second.duration) seek.value = (1000 * second.currentTime) / second.duration;
    if (follows && Math.abs(first.currentTime - second.currentTime) > 0.1) first.currentTime = second.currentTime;
  };
  seek.oninput = () => {
    second.currentTime = (seek.value / 1000) * second.duration;
    if (follows) first.currentTime = second.currentTime;
  };
  label();
}

$("file").addEventListener("change", () => {
  if ($("file").files[0]) open($("file").files[0]);
  $("file").value = "";
});
for (const kind of ["dragenter", "dragover"]) {
  document.addEventListener(kind, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
}
for (const kind of ["dragleave", "drop"]) {
  document.addEventListener(kind, (event) => { event.preventDefault(); $("drop").classList.remove("over"); });
}
document.addEventListener("drop", (event) => {
  if (limits && event.dataTransfer.files[0]) open(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => {
  if (limits && event.clipboardData.files[0]) open(event.clipboardData.files[0]);
});
$("cancel").addEventListener("click", () => { clear(); say("Cancelled."); $("file").focus(); });

// ---- Camera.

const CAMERA_PARTS = ["numbers", "numbers-help", "snapshot", "stop", "width-label", "flight-label", "mirror-label"];

async function startCamera() {
  clear();
  source = null;
  const before = document.createElement("canvas");
  const after = document.createElement("canvas");
  const mine = (camera = new Camera(api.liveAddress($("engine").value, $("flight").options.length), before, after, {
    width: Number($("width").value),
    maxPixels: limits.frame_pixels,
    inFlight: Number($("flight").value),
    onNumbers: showNumbers,
    onError: complain,
    onEnd: (message) => {
      reveal(CAMERA_PARTS.filter((id) => id !== "snapshot"), false);
      if (camera === mine) camera = null;
      if (message) complain(`the camera ended: ${message}`);
    },
  }));
  compare.show(before, after);
  compare.fit(mine.width);
  compare.mirror($("mirror").checked);
  try {
    await mine.start();
    reveal(["result", ...CAMERA_PARTS], true);
    $("stop").focus();
    say("The camera is on.");
  } catch (error) {
    mine.stop();
    reveal(["result", ...CAMERA_PARTS], false);
    complain(error.message);
  }
}

function showNumbers({ p50, p95, server, fps, skipped, width, height }) {
  $("p50").textContent = milliseconds(p50);
  $("p95").textContent = milliseconds(p95);
  $("server").textContent = milliseconds(server);
  $("fps").textContent = Number.isFinite(fps) ? fps.toFixed(1) : "–";
  $("skipped").textContent = skipped;
  $("size").textContent = `${width}×${height}`;
}

$("camera").addEventListener("click", startCamera);
$("stop").addEventListener("click", () => { camera?.stop(); say("The camera is off."); $("camera").focus(); });
$("width").addEventListener("change", () => camera && (camera.width = Number($("width").value)));
$("flight").addEventListener("change", () => camera && (camera.inFlight = Number($("flight").value)));
$("mirror").addEventListener("change", () => compare.mirror($("mirror").checked));
$("snapshot").addEventListener("click", () => {
  $("after").firstElementChild.toBlob((blob) => {
    const link = Object.assign(document.createElement("a"), { href: blobAddress(blob), download: "translated.png" });
    link.click();
  });
});

// ---- Engine and colours.

$("engine").addEventListener("change", () => {
  if (camera) startCamera();
  else if (source) open(source);
});
addEventListener("pagehide", () => clipId && fetch(`/api/clips/${clipId}`, { method: "DELETE", keepalive: true }));

const THEMES = { "": "as the system", dark: "dark", light: "light" };
function theme(name) {
  if (name) document.documentElement.dataset.theme = name;
  else delete document.documentElement.dataset.theme;
  $("theme").setAttribute("aria-label", `Colours: ${THEMES[name]}`);
  $("theme").title = `Colours: ${THEMES[name]}`;
}
function stored() {
  try { return localStorage.getItem("theme") in THEMES ? localStorage.getItem("theme") : ""; } catch { return ""; }
}
$("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  const next = names[(names.indexOf(document.documentElement.dataset.theme ?? "") + 1) % names.length];
  theme(next);
  try { localStorage.setItem("theme", next); } catch { /* a private window */ }
});
theme(stored());

begin();
