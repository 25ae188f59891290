// Runs a command beside an embedded server with the given settings: `node beside.mjs NAME=VALUE … -- COMMAND …`.
// CONFAB_URL gives the command the server's address. Afterwards the server is stopped and its data is removed.
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const at = process.argv.indexOf("--");
const settings = Object.fromEntries(process.argv.slice(2, at).map((setting) => setting.split(/=(.*)/s).slice(0, 2)));
const [command, ...words] = process.argv.slice(at + 1);

/** A port that is free now. */
const port = () =>
  new Promise((found) => {
    const server = net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => found(port));
    });
  });
const [listen, admin] = [`127.0.0.1:${await port()}`, `127.0.0.1:${await port()}`];
const data = mkdtempSync(join(tmpdir(), "confab-beside-"));
const own = { CONFAB_LISTEN: listen, CONFAB_ADMIN_LISTEN: admin, CONFAB_DATA_DIR: data, CONFAB_LOG: "warn" };
const program = fileURLToPath(new URL("../../target/debug/confab", import.meta.url));
const server = spawn(program, { env: { ...own, ...settings }, stdio: ["ignore", "inherit", "inherit"] });
try {
  while (!(await fetch(`http://${admin}/readyz`).then(({ ok }) => ok, () => false))) {
    if (server.exitCode !== null) throw new Error("the server did not start");
    await new Promise((done) => setTimeout(done, 50));
  }
  const env = { ...process.env, CONFAB_URL: `http://${listen}` };
  process.exitCode = await new Promise((done) => spawn(command, words, { env, stdio: "inherit" }).on("exit", (code) => done(code ?? 1)));
} finally {
  server.kill("SIGKILL");
  rmSync(data, { recursive: true, force: true });
}
