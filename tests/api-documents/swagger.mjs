// Uses Swagger UI of the server in CONFAB_URL like a person, in Chromium: a call is refused, "Authorize" accepts a token, and
// the call succeeds. The page must load nothing from other origins, and the browser must report no errors.
import assert from "node:assert/strict";
import { chromium } from "playwright-core";

const url = process.env.CONFAB_URL;
const credentials = { username: `ada-${Date.now().toString(36)}`, password: "correct horse battery" };
const signup = await fetch(`${url}/api/auth/signup`, {
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify(credentials),
});
const { token } = await signup.json();

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  // Root has no sandbox; the page is our own.
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(30_000);
  const complaints = [];
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => {
    // This call provokes the 401.
    if (message.type() === "error" && !message.text().includes("401")) complaints.push(message.text());
  });
  page.on("request", (request) => {
    const to = request.url();
    if (!to.startsWith(`${url}/`) && !to.startsWith("data:") && !to.startsWith("blob:")) complaints.push(`asks ${to}`);
  });

  await page.goto(`${url}/docs`);
  const call = page.locator("#operations-Auth-me");
  await call.locator(".opblock-summary-control").click();
  const execute = async () => {
    const [answer] = await Promise.all([
      page.waitForResponse(`${url}/api/auth/me`),
      call.getByRole("button", { name: "Execute" }).click(),
    ]);
    await call.locator(".live-responses-table .response-col_status").getByText(String(answer.status())).waitFor();
    return { status: answer.status(), shown: await call.locator(".live-responses-table").innerText() };
  };
  assert.equal((await execute()).status, 401);

  await page.getByRole("button", { name: "Authorize" }).first().click();
  const dialog = page.locator(".dialog-ux");
  await dialog.locator("input").fill(token);
  await dialog.getByRole("button", { name: "Apply credentials" }).click();
  await dialog.getByRole("button", { name: "Close" }).last().click();
  const { status, shown } = await execute();
  assert.equal(status, 200);
  assert.ok(shown.includes(credentials.username), shown);
  assert.deepEqual(complaints, []);
} finally {
  await browser.close();
}
console.log("Swagger UI: Authorize takes a token, and calls are made with it");
