// Calls the server in CONFAB_URL from pages in Chromium. Pages of the origins http://chat.example, null and file://,
// which the server's CONFAB_ALLOWED_ORIGINS lists, may call and connect, with credentials and any headers; pages of
// other origins may not.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const url = process.env.CONFAB_URL;
const client = readFileSync(new URL("../clients/js/node_modules/socket.io-client/dist/socket.io.js", import.meta.url), "utf8");
const credentials = JSON.stringify({ username: `ada-${Date.now().toString(36)}`, password: "correct horse battery" });
const signup = await fetch(`${url}/api/auth/signup`, { method: "POST", headers: { "content-type": "application/json" }, body: credentials });
const { token } = await signup.json();

/** In the page: what REST and each transport answer. */
async function call({ url, token, client }) {
  const script = document.createElement("script");
  script.textContent = client;
  document.head.append(script);
  const headers = {
    authorization: `Bearer ${token}`,
    "content-type": "application/json",
    "cache-control": "no-cache",
    "x-requested-with": "XMLHttpRequest",
    "sentry-trace": "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1",
    baggage: "sentry-environment=test",
  };
  const room = JSON.stringify({ name: `Tea ${crypto.getRandomValues(new Uint32Array(2)).join("")}` });
  const ask = (path, options) =>
    fetch(`${url}${path}`, { headers, credentials: "include", ...options }).then(({ status }) => status, () => "refused");
  const connect = (transport) =>
    new Promise((done) => {
      // A browser that offers subprotocols fails when the server selects none.
      const options = { withCredentials: true, protocols: ["first", "second"], reconnection: false };
      const socket = io(url, { auth: { token }, transports: [transport], ...options });
      const end = (what) => {
        socket.disconnect();
        done(what);
      };
      socket.on("connect", () => socket.emit("nonsense", {}, ({ error }) => end(error.code)));
      socket.on("connect_error", () => end("refused"));
    });
  return {
    read: await ask("/api/auth/me"),
    write: await ask("/api/rooms", { method: "POST", body: room }),
    polling: await connect("polling"),
    websocket: await connect("websocket"),
  };
}

const pages = createServer((request, response) => {
  response.writeHead(200, { "content-type": "text/html" }).end("<!doctype html><title>a page</title>");
});
await new Promise((listening) => pages.listen(0, "127.0.0.1", listening));
const at = `127.0.0.1:${pages.address().port}`;
const directory = mkdtempSync(join(tmpdir(), "confab-origins-"));
const saved = join(directory, "page.html");
writeFileSync(saved, "<!doctype html><title>a page on disk</title>");

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: [
    // As root, Chromium has no sandbox; the pages are our own.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    `--host-resolver-rules=MAP chat.example:80 ${at}, MAP evil.example:80 ${at}`,
  ],
});
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(30_000);
  const calls = (frame) => frame.evaluate(call, { url, token, client });
  const served = { read: 200, write: 201, polling: "not_found", websocket: "not_found" };
  const refused = { read: "refused", write: "refused", polling: "refused", websocket: "refused" };

  await page.goto("http://chat.example/");
  assert.deepEqual(await calls(page), served, "a listed origin");

  await page.setContent('<iframe sandbox="allow-scripts" srcdoc="<!doctype html><title>a sandbox</title>"></iframe>');
  const sandboxed = await (await page.locator("iframe").elementHandle()).contentFrame();
  assert.equal(await sandboxed.evaluate(() => origin), "null");
  assert.deepEqual(await calls(sandboxed), served, "a sandboxed frame");

  await page.goto(pathToFileURL(saved).href);
  assert.deepEqual(await calls(page), served, "a page on disk");

  await page.goto("http://evil.example/");
  assert.deepEqual(await calls(page), refused, "an origin that is not listed");
} finally {
  await browser.close();
  pages.close();
  rmSync(directory, { recursive: true });
}
console.log("Origins: pages of listed origins call and connect with credentials, other pages cannot");
