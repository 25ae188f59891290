// Checks custom resources against the projects' custom resource definitions: `node check.js FILE.yaml…`. The packages
// are generated from those definitions. Their validators check every rule but ignore unknown fields, like the API
// server, which drops them. Their types detect unknown fields.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";
import { parseAllDocuments } from "yaml";

const PACKAGES = {
  "cert-manager.io": "@kubernetes-models/cert-manager",
  "gateway.networking.k8s.io": "@kubernetes-models/gateway-api",
  "keda.sh": "@kubernetes-models/keda",
  "monitoring.coreos.com": "@kubernetes-models/prometheus-operator",
};

const wrong = [];
const typed = [];
let count = 0;
for (const file of process.argv.slice(2)) {
  for (const document of parseAllDocuments(readFileSync(file, "utf8"))) {
    const object = document.toJS();
    const [group, version] = object?.apiVersion?.split("/") ?? [];
    if (!PACKAGES[group]) continue;
    count += 1;
    const name = `${object.kind} ${object.metadata.name} of ${file}`;
    const model = `${PACKAGES[group]}/${object.apiVersion}/${object.kind}`;
    try {
      const kind = await import(model);
      new kind[object.kind](object).validate();
      typed.push({ name, text: `import type { I${object.kind} } from ${JSON.stringify(model)};\nexport const object: I${object.kind} = ${JSON.stringify(object)};\n` });
    } catch (error) {
      wrong.push(`${name}: ${error.message}`);
    }
  }
}

// Inside this directory, so that TypeScript finds the packages.
const work = mkdtempSync(join(dirname(fileURLToPath(import.meta.url)), "node_modules/.checked-"));
try {
  const names = new Map(typed.map(({ name, text }, n) => [join(work, `${n}.ts`), { name, text }]));
  for (const [path, { text }] of names) writeFileSync(path, text);
  const options = { noEmit: true, strict: true, skipLibCheck: true, module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext, types: [] };
  for (const { file, messageText } of ts.getPreEmitDiagnostics(ts.createProgram([...names.keys()], options))) {
    wrong.push(`${names.get(file?.fileName)?.name ?? file?.fileName}: ${ts.flattenDiagnosticMessageText(messageText, "\n")}`);
  }
} finally {
  rmSync(work, { recursive: true });
}
if (count === 0) wrong.push("no objects to check");
for (const what of wrong) console.error(what);
process.exitCode = wrong.length === 0 ? 0 : 1;
