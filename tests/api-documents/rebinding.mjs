// Simulates DNS rebinding in Chromium: the name of a foreign site resolves to the address of the server in CONFAB_URL.
// A page with that name has the server's origin, so no browser rule protects the server. The server must reject the
// Host header.
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const url = new URL(process.env.CONFAB_URL);
const foreign = `http://evil.example:${url.port}`;
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  // As root, Chromium has no sandbox; the page is our own.
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", `--host-resolver-rules=MAP evil.example ${url.hostname}`],
});
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(30_000);
  const shown = await page.goto(`${foreign}/docs`);
  assert.equal(shown.status(), 400);
  const tried = await page.evaluate(async () => {
    const credentials = JSON.stringify({ username: `eve-${Date.now().toString(36)}`, password: "correct horse battery" });
    const signup = await fetch("/api/auth/signup", { method: "POST", headers: { "content-type": "application/json" }, body: credentials });
    const session = await fetch("/socket.io/?EIO=4&transport=polling");
    const socket = await new Promise((resolve) => {
      const opening = new WebSocket(`ws://${location.host}/socket.io/?EIO=4&transport=websocket`);
      opening.onopen = () => resolve("open");
      opening.onerror = () => resolve("refused");
    });
    return { signup: signup.status, session: session.status, socket };
  });
  assert.deepEqual(tried, { signup: 400, session: 400, socket: "refused" });
} finally {
  await browser.close();
}
console.log("DNS rebinding: a page with a foreign name receives nothing");
