// Uploads files with common libraries in their usual way. Reads {url, token, roomId, files: [{by, name, type, base64}]}
// as JSON from standard input, and prints [{status, body}].
import axios from "axios";
import NodeFormData from "form-data";
import { Readable } from "node:stream";
import { text } from "node:stream/consumers";

const { url, token, roomId, files } = JSON.parse(await text(process.stdin));
const authorization = `Bearer ${token}`;
const options = { headers: { authorization }, validateStatus: () => true };
const upload = `${url}/api/files/upload`;

const answer = ({ status, data }) => ({ status, body: data });

/** The form of web pages. */
function form({ name, type, base64 }) {
  const form = new FormData();
  form.append("roomId", roomId);
  form.append("file", new Blob([Buffer.from(base64, "base64")], { type }), name);
  return form;
}

/** The form of the package that Node's programs used before. */
function nodeForm({ name, type, base64 }, content = Buffer.from(base64, "base64")) {
  const form = new NodeFormData();
  form.append("roomId", roomId);
  form.append("file", content, { filename: name, contentType: type });
  return form;
}

const libraries = {
  axios: async (given) => answer(await axios.post(upload, form(given), options)),
  "axios and form-data": async (given) => answer(await axios.post(upload, nodeForm(given), options)),
  "axios and a stream": async (given) =>
    answer(await axios.post(upload, nodeForm(given, Readable.from([Buffer.from(given.base64, "base64")])), options)),
  fetch: async (given) => {
    const response = await fetch(upload, { method: "POST", headers: { authorization }, body: form(given) });
    return { status: response.status, body: await response.json() };
  },
};

const answers = [];
for (const given of files) answers.push(await libraries[given.by](given));
console.log(JSON.stringify(answers));
