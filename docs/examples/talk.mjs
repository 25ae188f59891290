import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { io } from "socket.io-client";

const url = "http://127.0.0.1:8080";
const [username, password = "correct horse battery"] = process.argv.slice(2);
const headers = { "Content-Type": "application/json" };
const stop = (reason) => process.exit(console.error(reason) ?? 1);
const ask = (path, body) =>
  fetch(url + path, { method: body ? "POST" : "GET", headers, body: JSON.stringify(body) })
    .then((answer) => answer.json())
    .catch(() => stop(`no Confab server answers at ${url}`));

let session = await ask("/api/auth/signup", { username, password });
if (session.code === "username_taken")
  session = await ask("/api/auth/login", { username, password });
if (session.code) stop(session.detail);
headers.Authorization = `Bearer ${session.token}`;
const isLobby = ({ name, visibility }) => name === "Lobby" && visibility === "public";
let room = await ask("/api/rooms", { name: "Lobby" });
if (room.code) room = (await ask("/api/rooms?q=Lobby")).items.find(isLobby);

let place = { roomId: room.id, last: 20 };
const show = ({ seq, sender, content }) => {
  place.after = seq;
  console.log(`${sender?.username}: ${content}`);
};
const entered = ({ error, messages, complete, lastSeq, epoch }) => {
  if (error) stop(error.detail);
  messages.forEach(show);
  if (!complete) console.log("(and more in between)");
  place = { roomId: room.id, after: lastSeq, epoch };
};
const socket = io(url, { auth: { token: session.token, recovery: true } });
socket.on("message", show);
socket.on("connect", () => socket.recovered || socket.emit("joinRoom", place, entered));
socket.on("connect_error", (error) => error.data && stop(error.message));
socket.on("sessionEnded", ({ code }) => stop(`the session has ended: ${code}`));

for await (const content of createInterface({ input: process.stdin })) {
  await send({ roomId: room.id, content, clientMessageId: randomUUID() });
}

async function send(message) {
  const lost = { error: { status: 504 } };
  const { error } = await socket.timeout(5000).emitWithAck("message", message).catch(() => lost);
  if (error?.status < 500) return console.log(`not sent: ${error.detail}`);
  if (error) await sleep(500).then(() => send(message)); // the same id: stored once
}
