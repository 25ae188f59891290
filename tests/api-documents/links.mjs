// Opens links to files of the server in CONFAB_URL in Chromium. The browser's own player plays recordings of the
// browser, the browser shows pictures and downloads files that it might execute, and pages of other sites may embed the
// files.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { chromium } from "playwright-core";

const url = process.env.CONFAB_URL;
const json = { "content-type": "application/json" };
const credentials = { username: `ada-${Date.now().toString(36)}`, password: "correct horse battery" };
const signup = await fetch(`${url}/api/auth/signup`, { method: "POST", headers: json, body: JSON.stringify(credentials) });
const authorization = `Bearer ${(await signup.json()).token}`;

/** Uploads a file; returns it and a link to it. */
async function upload(name, type, bytes) {
  const form = new FormData();
  form.append("file", new Blob([bytes], { type }), name);
  const answer = await fetch(`${url}/api/files/upload`, { method: "POST", headers: { authorization }, body: form });
  const file = await answer.json();
  assert.equal(answer.status, 201, JSON.stringify(file));
  const link = await (await fetch(`${url}${file.url}/link`, { headers: { authorization } })).json();
  return { file, link: `${url}${link.url}` };
}

/** A second of silence, 8,000 samples of 16 bits. */
function wav() {
  const bytes = Buffer.alloc(44 + 16_000);
  bytes.write("RIFF", 0);
  bytes.writeUInt32LE(bytes.length - 8, 4);
  bytes.write("WAVEfmt ", 8);
  for (const [at, value] of [[16, 16], [24, 8000], [28, 16_000], [40, 16_000]]) bytes.writeUInt32LE(value, at);
  for (const [at, value] of [[20, 1], [22, 1], [32, 2], [34, 16]]) bytes.writeUInt16LE(value, at);
  bytes.write("data", 36);
  return bytes;
}

/** Two seconds of silence: empty frames of 128 kbit/s at 44.1 kHz. */
function mp3() {
  const frame = Buffer.alloc(417);
  frame.writeUInt32BE(0xfffb9000, 0);
  return Buffer.concat(Array(80).fill(frame));
}

/** In the page: records a tone, and moving colours if the type is a video's. */
async function record(type) {
  const audio = new AudioContext();
  const [tone, sound] = [audio.createOscillator(), audio.createMediaStreamDestination()];
  tone.connect(sound);
  tone.start();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [64, 64];
  const context = canvas.getContext("2d");
  const painting = setInterval(() => {
    context.fillStyle = `hsl(${performance.now() % 360} 90% 50%)`;
    context.fillRect(0, 0, 64, 64);
  }, 40);
  const pictures = type.startsWith("video/") ? canvas.captureStream(10).getTracks() : [];
  const recorder = new MediaRecorder(new MediaStream([...sound.stream.getTracks(), ...pictures]), { mimeType: type });
  const parts = [];
  recorder.ondataavailable = ({ data }) => parts.push(data);
  recorder.start();
  await new Promise((done) => setTimeout(done, 800));
  await new Promise((stopped) => {
    recorder.onstop = stopped;
    recorder.stop();
  });
  clearInterval(painting);
  const bytes = new Uint8Array(await new Blob(parts).arrayBuffer());
  return { type: recorder.mimeType, bytes: [...bytes] };
}

/** In the page: a picture 3 pixels wide, in base64. */
function paint() {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [3, 3];
  return canvas.toDataURL("image/png").split(",")[1];
}

const SVG = '<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>document.title="run"</script></svg>';

let png;
// Pages that may embed only resources that allow it. 127.0.0.1 is another site than localhost.
const pages = createServer((request, response) => {
  if (request.url === "/picture") return response.writeHead(200, { "content-type": "image/png" }).end(png);
  const isolated = { "cross-origin-embedder-policy": "require-corp", "cross-origin-opener-policy": "same-origin" };
  response.writeHead(200, { "content-type": "text/html", ...isolated }).end("<!doctype html><title>a page</title>");
});
await new Promise((listening) => pages.listen(0, "127.0.0.1", listening));
const { port } = pages.address();

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  // As root, Chromium has no sandbox; the page is our own.
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--autoplay-policy=no-user-gesture-required"],
});
try {
  const context = await browser.newContext();
  const complaints = [];

  /** A new tab; what its browser complains about is collected. */
  async function tab(what) {
    const page = await context.newPage();
    page.setDefaultTimeout(30_000);
    page.on("console", (message) => message.type() === "error" && complaints.push(`${what}: ${message.text()}`));
    return page;
  }

  const studio = await tab("studio");
  png = Buffer.from(await studio.evaluate(paint), "base64");
  const media = [
    ["silence.wav", "audio/x-wav", wav(), "audio/wav"],
    ["silence.mp3", "audio/mpeg", mp3(), "audio/mpeg"],
  ];
  for (const type of ["audio/webm;codecs=opus", "video/webm", "audio/mp4", "video/mp4"]) {
    const { type: claimed, bytes } = await studio.evaluate(record, type);
    const plain = type.split(";")[0];
    assert.ok(claimed.startsWith(plain), claimed);
    media.push([plain.replace("/", "."), claimed, Buffer.from(bytes), plain]);
  }
  for (const [name, claimed, bytes, meant] of media) {
    const { file, link } = await upload(name, claimed, bytes);
    assert.equal(file.contentType, meant, `${name} as ${claimed}`);
    const page = await tab(name);
    const answer = await page.goto(link);
    assert.equal(answer.headers()["content-type"], meant);
    const loaded = () => {
      const player = document.querySelector("video, audio");
      return player && (player.readyState >= 2 || player.error) && { error: player.error?.message ?? null, duration: player.duration };
    };
    const { error, duration } = await (await page.waitForFunction(loaded)).jsonValue();
    assert.equal(error, null, name);
    assert.ok(duration > 0.3, `${name} lasts ${duration} s`);
    await page.close();
  }

  const picture = await upload("dot.png", "image/png", png);
  const shown = await tab("dot.png");
  await shown.goto(picture.link);
  assert.equal(await shown.evaluate(() => document.images[0].naturalWidth), 3);

  const drawing = await upload("drawing.svg", "image/svg+xml", SVG);
  assert.equal(drawing.file.contentType, "image/svg+xml");
  const note = await upload("note.txt", "text/plain", "<script>document.title='run'</script>");
  const page = await upload("page.html", "text/html", "<script>document.title='run'</script>");
  for (const { file, link } of [drawing, note, page]) {
    const saving = await tab(file.name);
    const [download] = await Promise.all([saving.waitForEvent("download"), saving.goto(link).catch(() => {})]);
    assert.equal(download.suggestedFilename(), file.name);
    assert.equal(await saving.title(), "");
    await download.cancel();
  }
  assert.deepEqual(complaints, []);

  const isolated = await tab("a page of another site");
  await isolated.goto(`http://localhost:${port}/`);
  assert.ok(await isolated.evaluate(() => crossOriginIsolated));
  const embed = (from) =>
    isolated.evaluate(
      (from) =>
        new Promise((done) => {
          const image = new Image();
          image.onload = () => done(image.naturalWidth);
          image.onerror = () => done("refused");
          image.src = from;
        }),
      from,
    );
  assert.equal(await embed(picture.link), 3);
  assert.equal(await embed(drawing.link), 9);
  assert.equal(await embed(`http://127.0.0.1:${port}/picture`), "refused");
} finally {
  await browser.close();
  pages.close();
}
console.log("Links: Chromium plays, shows or downloads each file as intended, and pages of other sites may embed it");
