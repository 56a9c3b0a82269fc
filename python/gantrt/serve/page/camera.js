// The camera: frames go to the server as JPEG over a WebSocket and come back translated. What is shown as "before" is
// the very frame that "after" was made of, and the latency is measured from taking it to drawing its translation.

const HEADER = 16;
const VERSION = 1;
const JPEG = 1;
const KEPT = 200; // measurements
const QUALITY = 0.85;

const rank = (values, p) => {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length ? sorted[Math.max(0, Math.ceil(p * sorted.length) - 1)] : NaN;
};

export class Camera {
  // before, after: canvases. onNumbers(numbers) comes about four times a second, onEnd(message or null) once.
  constructor(address, before, after, { width, maxPixels, inFlight, onNumbers, onError, onEnd }) {
    Object.assign(this, { address, before, after, width, maxPixels, inFlight, onNumbers, onError, onEnd });
    this.pending = new Map(); // sequence -> { taken, bitmap }
    this.sequence = 0;
    this.latencies = [];
    this.serverTimes = [];
    this.drawn = []; // when
    this.skipped = 0;
    this.taking = this.fresh = false;
    this.ended = false;
  }

  async start() {
    if (!navigator.mediaDevices) throw new Error("browsers give the camera to https and localhost pages only");
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 }, facingMode: "user" } });
    } catch (error) {
      const why = { NotAllowedError: "the browser was told not to give the camera", NotFoundError: "there is no camera here" };
      throw new Error(why[error.name] ?? `the camera cannot be opened (${error.message || error.name})`);
    }
    this.video = document.createElement("video");
    this.video.muted = this.video.playsInline = true;
    this.video.srcObject = this.stream;
    await this.video.play();
    this.grab = document.createElement("canvas");
    this.socket = new WebSocket(this.address);
    this.socket.binaryType = "arraybuffer";
    this.socket.onmessage = (event) => this.receive(event.data);
    this.socket.onopen = () => this.watch();
    this.socket.onclose = (event) => this.end(event.wasClean ? event.reason || null : "the connection to the server is lost");
    this.timer = setInterval(() => this.report(), 250);
  }

  stop() {
    this.end(null);
  }

  end(message) {
    if (this.ended) return;
    this.ended = true;
    clearInterval(this.timer);
    this.stream?.getTracks().forEach((track) => track.stop());
    this.socket?.close();
    this.pending.forEach(({ bitmap }) => bitmap.close());
    this.pending.clear();
    this.onEnd(message);
  }

  // Called for every new frame of the camera; a frame is taken when fewer than the limit are under way.
  watch() {
    if (this.ended) return;
    this.fresh = true; // no frame of the camera is sent twice
    this.take();
    if (this.video.requestVideoFrameCallback) this.video.requestVideoFrameCallback(() => this.watch());
    else requestAnimationFrame(() => this.watch());
  }

  async take() {
    if (!this.fresh || this.taking || this.pending.size >= this.inFlight || this.socket.readyState !== WebSocket.OPEN) return;
    const { videoWidth, videoHeight } = this.video;
    if (!videoWidth) return;
    this.taking = true;
    this.fresh = false;
    try {
      const taken = performance.now();
      const scale = Math.min(1, this.width / videoWidth, Math.sqrt(this.maxPixels / (videoWidth * videoHeight)));
      this.grab.width = Math.max(1, Math.floor(videoWidth * scale));
      this.grab.height = Math.max(1, Math.floor(videoHeight * scale));
      this.grab.getContext("2d").drawImage(this.video, 0, 0, this.grab.width, this.grab.height);
      const [bitmap, blob] = await Promise.all([
        createImageBitmap(this.grab),
        new Promise((resolve) => this.grab.toBlob(resolve, "image/jpeg", QUALITY)),
      ]);
      const picture = new Uint8Array(await blob.arrayBuffer());
      if (this.ended) return bitmap.close();
      const message = new Uint8Array(HEADER + picture.length);
      const head = new DataView(message.buffer);
      head.setUint8(0, VERSION);
      head.setUint8(1, JPEG);
      this.sequence = (this.sequence + 1) >>> 0;
      head.setUint32(4, this.sequence, true);
      message.set(picture, HEADER);
      this.pending.set(this.sequence, { taken, bitmap });
      this.socket.send(message);
    } finally {
      this.taking = false;
    }
  }

  async receive(data) {
    if (typeof data === "string") {
      const { message, sequence } = JSON.parse(data).error;
      this.forgetUpTo(sequence ?? this.sequence);
      this.onError(message);
      return;
    }
    const head = new DataView(data);
    const sequence = head.getUint32(4, true);
    const sent = this.pending.get(sequence);
    this.pending.delete(sequence);
    this.skipped += head.getUint16(2, true);
    this.forgetUpTo(sequence);
    this.take();
    if (!sent) return;
    const translated = await createImageBitmap(new Blob([new Uint8Array(data, HEADER)], { type: "image/jpeg" }));
    if (!this.ended) {
      draw(this.before, sent.bitmap);
      draw(this.after, translated);
      const now = performance.now();
      keep(this.latencies, now - sent.taken);
      keep(this.serverTimes, head.getUint32(12, true) / 1000);
      keep(this.drawn, now);
    }
    sent.bitmap.close();
    translated.close();
  }

  // Replies come in order: what is older than this one was given up by the server.
  forgetUpTo(sequence) {
    for (const [older, { bitmap }] of this.pending) {
      if (older > sequence) break;
      bitmap.close();
      this.pending.delete(older);
    }
  }

  report() {
    const since = performance.now() - 2000;
    const recent = this.drawn.filter((time) => time > since);
    const seconds = recent.length > 1 ? (recent.at(-1) - recent[0]) / 1000 : NaN;
    this.onNumbers({
      p50: rank(this.latencies, 0.5),
      p95: rank(this.latencies, 0.95),
      server: rank(this.serverTimes, 0.5),
      fps: (recent.length - 1) / seconds,
      skipped: this.skipped,
      frames: this.drawn.length,
      width: this.after.width,
      height: this.after.height,
    });
  }
}

function draw(canvas, bitmap) {
  if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
    canvas.width = bitmap.width;
    canvas.height = bitmap.height;
  }
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
}

function keep(values, value) {
  values.push(value);
  if (values.length > KEPT) values.shift();
}
