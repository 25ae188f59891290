// Two people use the README's first program, docs/examples/talk.mjs, with the server in CONFAB_URL. They receive each
// other's messages, also across a broken connection, no message is duplicated, and mistakes are answered with an
// explanation.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));
const program = readFileSync(join(root, "docs/examples/talk.mjs"), "utf8");
const server = new URL(process.env.CONFAB_URL);
const work = mkdtempSync(join(tmpdir(), "confab-talk-"));
symlinkSync(join(root, "tests/clients/js/node_modules"), join(work, "node_modules"));
const running = new Set();

/** Starts the program for a server at this address. */
function talk(url, ...words) {
  const file = join(work, `talk-${running.size}.mjs`);
  writeFileSync(file, program.replace("http://127.0.0.1:8080", url));
  const process = spawn("node", [file, ...words], { stdio: ["pipe", "pipe", "pipe"] });
  running.add(process);
  const heard = [];
  for (const stream of [process.stdout, process.stderr]) createInterface({ input: stream }).on("line", (line) => heard.push(line));
  return {
    heard,
    say: (line) => process.stdin.write(`${line}\n`),
    ended: new Promise((done) => process.on("close", done)),
  };
}

async function until(what, holds) {
  for (const end = Date.now() + 30_000; !holds(); await new Promise((done) => setTimeout(done, 20))) {
    if (Date.now() > end) throw new Error(`timed out: ${what}`);
  }
}

// Proxies between the program and the server: cut connections, and can swallow the server's bytes.
const links = new Set();
let isDeaf = false;
const proxy = net.createServer((near) => {
  const far = net.connect(server.port, server.hostname);
  const link = { cut: () => [near, far].forEach((socket) => socket.destroy()) };
  links.add(link);
  near.pipe(far);
  far.on("data", (data) => isDeaf || near.write(data));
  for (const socket of [near, far]) socket.on("error", link.cut).on("close", () => (link.cut(), links.delete(link)));
});
await new Promise((listening) => proxy.listen(0, "127.0.0.1", listening));
const cut = () => [...links].forEach((link) => link.cut());

try {
  const ada = talk(server.origin, "ada");
  ada.say("hello");
  await until("ada receives her own message", () => ada.heard.includes("ada: hello"));
  const bob = talk(`http://127.0.0.1:${proxy.address().port}`, "bob");
  await until("bob reads the history", () => bob.heard.includes("ada: hello"));
  bob.say("hello, ada");
  await until("ada receives bob's message", () => ada.heard.includes("bob: hello, ada"));

  // Bob's message reaches the server, but its acknowledgement is lost.
  isDeaf = true;
  bob.say("are you there?");
  await until("ada receives the message", () => ada.heard.includes("bob: are you there?"));
  ada.say("yes");
  await until("ada receives the answer", () => ada.heard.includes("ada: yes"));
  isDeaf = false;
  cut();
  ada.say("and now?");
  await until("bob receives the missed message", () => bob.heard.includes("ada: and now?"));
  bob.say("all is well");
  await until("ada receives bob's messages again", () => ada.heard.includes("bob: all is well"));
  await until("bob receives his own message again", () => bob.heard.includes("bob: all is well"));
  const said = ["ada: hello", "bob: hello, ada", "bob: are you there?", "ada: yes", "ada: and now?", "bob: all is well"];
  assert.deepEqual(ada.heard, said);
  assert.deepEqual(bob.heard, said);
  bob.say("x".repeat(16_385));
  await until("bob's message is rejected", () => bob.heard.includes("not sent: content must be at most 16384 bytes"));

  const mistakes = [
    [server.origin, ["a"], "username must be 3 to 32 characters"],
    [server.origin, [], "username must be given"],
    [server.origin, ["ada", "not her password"], "wrong username or password"],
    ["http://127.0.0.1:9", ["ada"], "no Confab server answers at http://127.0.0.1:9"],
  ];
  for (const [url, words, sentence] of mistakes) {
    const mistaken = talk(url, ...words);
    assert.equal(await mistaken.ended, 1);
    assert.deepEqual(mistaken.heard, [sentence]);
  }
} finally {
  for (const process of running) process.kill();
  proxy.close();
  cut();
  rmSync(work, { recursive: true, force: true });
}
console.log("The README's program: users receive each other's messages, also across a broken connection");
