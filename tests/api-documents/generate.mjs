// Prints the Postman collection of docs/openapi.json: its operations in a runnable order, with variables for values
// that a later request takes from an earlier response, and with the expected status of each operation.
import { readFileSync } from "node:fs";
import converter from "openapi-to-postmanv2";
import { folders, variables } from "./story.mjs";

const text = readFileSync(new URL("../../docs/openapi.json", import.meta.url), "utf8");
const document = JSON.parse(text);
const options = {
  parametersResolution: "Example",
  folderStrategy: "Tags",
  enableOptionalParameters: false,
  includeAuthInfoInExample: false,
};
const converted = await new Promise((resolve, reject) =>
  converter.convertV2({ type: "string", data: text }, options, (error, result) =>
    error || !result.result ? reject(error ?? new Error(result.reason)) : resolve(result.output[0].data)));

const place = (method, path) => `${method.toUpperCase()} ${path}`;
const operations = new Map(Object.entries(document.paths).flatMap(([path, item]) =>
  Object.entries(item).map(([method, operation]) => [place(method, path.replaceAll(/{(\w+)}/g, ":$1")), operation])));
const requests = new Map(converted.item.flatMap((folder) => folder.item).map((item) => {
  const operation = operations.get(place(item.request.method, `/${item.request.url.path.join("/")}`));
  return [operation.operationId, { item, operation }];
}));

/** A request of the story, made of what the converter made of its operation. */
function step(id, { status, body, form, before, keep = {}, token, key, query = {} }) {
  const { item, operation } = requests.get(id) ?? {};
  if (!item) throw new Error(`the document has no operation ${id}`);
  requests.delete(id);
  const { request } = item;
  const open = operation.security.every((way) => Object.keys(way).length === 0);
  if (token) request.auth = bearer(token);
  else if (key) request.auth = bearer("{{serverKey}}");
  else if (open) request.auth = { type: "noauth" };
  else delete request.auth;
  // Optional parameters have no example, and the converter invents one.
  const optional = new Set((operation.parameters ?? []).filter(({ required }) => !required).map(({ name }) => name));
  for (const { header, url } of [request, ...item.response.map(({ originalRequest }) => originalRequest)]) {
    for (const part of [...(header ?? []), ...(url.query ?? [])]) if (optional.has(part.key)) part.value = "";
  }
  for (const part of request.url.query ?? []) if (part.key in query) Object.assign(part, { value: query[part.key], disabled: false });
  for (const variable of request.url.variable ?? []) variable.value = `{{${variable.key}}}`;
  if (body) request.body.raw = JSON.stringify(body, null, 2);
  if (form) {
    // A content type without its boundary must not be sent, and the converter invents fields.
    request.header = request.header.filter(({ key }) => key !== "Content-Type");
    request.body = { mode: "formdata", formdata: form };
    for (const { originalRequest } of item.response) originalRequest.body = request.body;
  }
  const after = [
    `pm.test("answers ${status}", () => pm.response.to.have.status(${status}));`,
    ...Object.entries(keep).map(([variable, path]) => `pm.collectionVariables.set("${variable}", pm.response.json().${path});`),
  ];
  const script = (listen, exec) => ({ listen, script: { type: "text/javascript", exec } });
  item.event = [...(before ? [script("prerequest", before)] : []), script("test", after)];
  return item;
}

function bearer(value) {
  return { type: "bearer", bearer: [{ key: "token", value, type: "string" }] };
}

const item = folders.map(({ name, steps }) => ({ name, item: Object.entries(steps).map(([id, say]) => step(id, say)) }));
if (requests.size > 0) throw new Error(`the story lacks: ${[...requests.keys()].join(", ")}`);

// Removes random values and the converter's additions, so that the same document always gives the same collection.
const unwanted = new Set(["id", "_postman_id", "uid", "_postman_previewlanguage"]);
const collection = {
  info: { name: document.info.title, description: document.info.description, schema: converted.info.schema },
  auth: bearer("{{token}}"),
  variable: Object.entries(variables).map(([key, value]) => ({ key, value })),
  item,
};
const strip = (value) => {
  if (Array.isArray(value)) return value.map(strip);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).filter(([key]) => !unwanted.has(key)).map(([key, inner]) => [key, strip(inner)]));
};
process.stdout.write(`${JSON.stringify(strip(collection), null, 2)}\n`);
