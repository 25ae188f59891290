// Executes the instructions in documents as a reader would, with the server in CONFAB_URL or with programs that the
// documents start. Each argument is a document, or `document#heading` for one of its sections. Blocks are processed in
// order: a block with a file name is written to that file, all `sh` blocks run in one shell, and a `text` or `json`
// block is the expected output of the preceding block, where `…` matches any text. Other blocks are not executed.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));

process.on("uncaughtException", (error) => {
  console.error(error.code === "ERR_ASSERTION" ? error.message : error);
  process.exit(1);
});

/** The blocks of a document, or of a section of it. */
function blocks(named) {
  const [document, heading] = named.split("#");
  let text = readFileSync(join(root, document), "utf8");
  if (heading) {
    text = text.split(/^(?=## )/m).find((section) => section.startsWith(`## ${heading}\n`));
    assert.ok(text, `${document} has no section ${heading}`);
  }
  return [...text.matchAll(/^```(\w+)(?: (\S+))?\n(.*?)^```$/gms)].map(([, language, file, body]) => ({ document, language, file, body }));
}

/** A port that is free now. */
const port = () =>
  new Promise((found) => {
    const server = net.createServer().listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => found(port));
    });
  });

/** The ports that stand for those of the documents. */
const ports = new Map();
for (const documented of ["50051", "50052", "50053", "50054", "9471", "9472", "9473", "9474", "9475", "8080"]) ports.set(documented, await port());

/** A block's text, for this server or these ports, and these programs. */
function here(text) {
  const { CONFAB_URL: url } = process.env;
  const placed = url ? text.replaceAll("http://127.0.0.1:8080", url) : text.replaceAll(/\b\d{4,5}\b/g, (number) => ports.get(number) ?? number);
  return placed.replaceAll("target/release/", `${root}/target/debug/`);
}

/** Whether an output is the shown one. */
function agrees(shown, said) {
  const quoted = shown.trim().split("…").map((part) => part.replaceAll(/[.*+?^${}()|[\]\\]/g, "\\$&"));
  return new RegExp(`^${quoted.join(".*")}$`, "s").test(said.trim());
}
assert.ok(agrees("a (…)\n", "a (1)") && !agrees("a …", "b 1") && !agrees("a", "a b"));

const work = mkdtempSync(join(tmpdir(), "confab-documents-"));
try {
  symlinkSync(join(root, "tests/clients/js/node_modules"), join(work, "node_modules"));
  for (const part of ["proto", "scripts", ".tools"]) symlinkSync(join(root, part), join(work, part));
  copyFileSync(join(root, "README.md"), join(work, "README.md"));
  const steps = [];
  for (const { document, language, file, body } of process.argv.slice(2).flatMap(blocks)) {
    if (file) {
      const example = join(root, "docs/examples", file);
      if (existsSync(example)) assert.equal(body, readFileSync(example, "utf8"), `${document} does not show docs/examples/${file} unchanged`);
      mkdirSync(dirname(join(work, file)), { recursive: true });
      writeFileSync(join(work, file), here(body));
    } else if (language === "sh") {
      steps.push({ document, command: here(body) });
    } else if (["text", "json"].includes(language) && steps.length > 0) {
      steps.at(-1).shown = here(body);
    }
  }
  assert.ok(steps.length > 0, "the document has no steps");
  const script = steps.map(({ command }, n) => `{\n${command}} > ${n}.out 2>&1\necho $? > ${n}.code\n`).join("");
  // Background processes of the document end with the shell.
  const ended = spawnSync("bash", ["-c", `trap 'kill $(jobs -p) 2> /dev/null' EXIT\n${script}`], { cwd: work, timeout: 120_000 });
  assert.equal(ended.error, undefined);
  for (const [n, { document, command, shown }] of steps.entries()) {
    const said = existsSync(join(work, `${n}.out`)) ? readFileSync(join(work, `${n}.out`), "utf8") : "";
    const code = existsSync(join(work, `${n}.code`)) ? readFileSync(join(work, `${n}.code`), "utf8").trim() : "none";
    assert.equal(code, "0", `${document}:\n${command}ends with ${code}:\n${said}`);
    assert.ok(shown === undefined || agrees(shown, said), `${document}:\n${command}prints\n${said}instead of\n${shown}`);
  }
  console.log(`${process.argv.slice(2).join(", ")}: ${steps.length} steps work as written`);
} finally {
  rmSync(work, { recursive: true, force: true });
}
