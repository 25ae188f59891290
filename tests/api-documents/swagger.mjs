// Uses Swagger UI of the fresh server in CONFAB_URL in Chromium, like a person: runs every operation as the page
// prefills it, in the order of the page. Only ids, which the page cannot know, are copied from earlier responses. The
// page must load nothing from other origins, and the browser must report no errors.
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { anotherUser, folders, loggedIn } from "./story.mjs";

const url = process.env.CONFAB_URL;
const document = await (await fetch(`${url}/openapi.json`)).json();
const operations = Object.entries(document.paths).flatMap(([path, item]) =>
  Object.entries(item).map(([method, operation]) => ({ method, path, ...operation })));
const resolve = (schema) => (schema.$ref ? document.components.schemas[schema.$ref.split("/").at(-1)] : schema);

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  // As root, Chromium has no sandbox; the page is our own.
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"],
});
const complaints = [];
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(30_000);
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("console", (message) => {
    // Calls without a token or a needed parameter, and with secrets of the examples, are rejected on purpose.
    if (message.type() === "error" && !/\b40[0134]\b/.test(message.text())) complaints.push(message.text());
  });
  page.on("request", (request) => {
    const to = request.url();
    if (!to.startsWith(`${url}/`) && !to.startsWith("data:") && !to.startsWith("blob:")) complaints.push(`asks ${to}`);
  });
  await page.goto(`${url}/docs`);
  await page.locator(".opblock").first().waitFor();
  const expected = (holds, what) => holds || complaints.push(what);

  expected(/confab/i.test(await page.title()), `the title of the page is ${await page.title()}`);
  expected((await page.locator(".topbar img, .topbar svg").count()) === 0, "the page shows a foreign logo");
  const shown = await page.locator(".opblock").evaluateAll((blocks) => blocks.map(({ id }) => id.split("-").at(-1)));
  expected(shown.indexOf("signup") === 0, `the first operation is ${shown[0]}, not signup`);
  expected(shown.indexOf("create_room") < shown.indexOf("send_message"), "send_message is listed before create_room");

  const known = {};
  const block = ({ tags, operationId }) => page.locator(`#operations-${tags[0]}-${operationId}`);

  /** Puts in what a person copies from earlier answers, and complains about what else is filled in. */
  async function fill(operation) {
    const at = block(operation);
    const name = operation.operationId;
    for (const { name: parameter, in: place, required, schema } of operation.parameters ?? []) {
      const input = at.locator(`tr[data-param-name="${parameter}"][data-param-in="${place}"]`).locator("input, select");
      if (required) await input.fill(String(known[parameter]));
      else expected(["", String(schema.default)].includes(await input.inputValue()), `${name}: ${parameter} is prefilled`);
    }
    const content = operation.requestBody?.content ?? {};
    if (content["application/json"]) {
      const text = at.locator(".body-param textarea");
      const body = JSON.parse(await text.inputValue());
      const { required } = resolve(content["application/json"].schema);
      // In a change, every field is optional.
      for (const field of required ? Object.keys(body) : [])
        expected(required.includes(field), `${name}: ${field} is prefilled`);
      const ids = ["roomId", "userId"].filter((id) => body[id]).map((id) => [id, known[id]]);
      if (ids.length > 0) await text.fill(JSON.stringify({ ...body, ...Object.fromEntries(ids) }));
    }
    if (content["multipart/form-data"]) {
      const { properties, required } = resolve(content["multipart/form-data"].schema);
      for (const field of Object.keys(properties)) {
        const input = at.locator(`tr[data-property-name="${field}"] input`).first();
        if (required.includes(field)) await input.setInputFiles(fileURLToPath(new URL("../../docs/openapi.json", import.meta.url)));
        else expected((await input.inputValue()) === "", `${name}: ${field} is prefilled`);
      }
    }
  }

  async function execute(operation) {
    const at = block(operation);
    await at.locator(".opblock-summary-control").click();
    await at.locator(".opblock-body").waitFor();
    await fill(operation);
    const isIt = (answer) => answer.request().method() === operation.method.toUpperCase() && /\/(api\/|.*jwks)/.test(new URL(answer.url()).pathname);
    const [answer] = await Promise.all([
      page.waitForResponse(isIt, { timeout: 5_000 }).catch(() => undefined),
      at.getByRole("button", { name: "Execute" }).click(),
    ]);
    if (!answer) return { status: "nothing", text: "the page refuses to send the request", json: {} };
    const status = answer.status();
    await at.locator(".live-responses-table .response-col_status").getByText(String(status)).waitFor();
    const json = await answer.json().catch(() => ({}));
    const text = await at.locator(".live-responses-table").innerText();
    // Open blocks slow the page down.
    await at.locator(".opblock-summary-control").click();
    return { status, json, text };
  }

  async function authorize(token, scheme = "bearer") {
    await page.getByRole("button", { name: "Authorize" }).first().click();
    const dialog = page.locator(".dialog-ux");
    expected((await dialog.innerText()).includes("without"), "the Authorize dialog does not say to omit Bearer");
    const form = dialog.locator(".auth-container").filter({ hasText: `${scheme} (http` });
    const former = form.getByRole("button", { name: "Remove authorization" });
    if (await former.isVisible()) await former.click();
    await form.locator("input").fill(token);
    await form.getByRole("button", { name: "Apply credentials" }).click();
    await dialog.getByRole("button", { name: "Close" }).last().click();
  }

  /** Calls an operation of the account in the examples without the page. */
  async function post(name, body) {
    const headers = { "Content-Type": "application/json" };
    return (await fetch(`${url}/api/auth/${name}`, { method: "POST", headers, body: JSON.stringify(body) })).json();
  }
  const credentials = { username: "ada", password: "correct horse battery" };

  const operation = (id) => operations.find(({ operationId }) => operationId === id) ?? assert.fail(`there is no operation ${id}`);
  assert.equal((await execute(operation("me"))).status, 401);
  const steps = folders.flatMap((folder) => Object.entries(folder.steps));
  assert.deepEqual(steps.map(([id]) => id).sort(), operations.map(({ operationId }) => operationId).sort());
  let keyed = false;
  for (const [id, { status, page: other, keep = {}, before, token, key }] of steps) {
    if (before === loggedIn) known.otherToken = (await post("login", credentials)).token;
    if (before === anotherUser) known.userId = (await post("signup", { ...credentials, username: "bob" })).user.id;
    if (token) await authorize(known.otherToken);
    if (key && !keyed) {
      await authorize(process.env.CONFAB_KEY, "key");
      keyed = true;
    }
    const { status: answered, json, text } = await execute(operation(id));
    // A browser sends `Origin` with every request that is no GET, and the server rejects keys from web pages.
    const wanted = key && operation(id).method !== "get" ? 401 : (other ?? status);
    expected(answered === wanted, `${id}: answers ${answered}, not ${wanted}: ${text.replaceAll("\n", " ").slice(0, 300)}`);
    if (answered < 300)
      for (const [variable, path] of Object.entries(keep)) known[variable] = new Function("json", `return json.${path}`)(json);
    if (id === "login") {
      await authorize(`Bearer ${known.token}`);
      const { text: refusal } = await execute(operation("me"));
      expected(refusal.includes("without"), `the error for "Bearer" before the token has no explanation: ${refusal.slice(0, 200)}`);
      await authorize(known.token);
    }
  }
} finally {
  await browser.close();
}
assert.equal(complaints.length, 0, complaints.join("\n"));
console.log("Swagger UI: every operation works as prefilled");
