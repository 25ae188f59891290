// Stock socket.io-client sockets, driven by one JSON command per line on standard input. Each event of a socket is
// reported as one JSON line on standard output. The program ends when its input ends. With the argument `browser`, the
// sockets come from the build for web pages, the only build that can send a Blob or a File.
import { Blob, File } from "node:buffer";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const load = createRequire(import.meta.url);
const { io } = process.argv[2] === "browser" ? browser() : load("socket.io-client");

// The browser globals that this build needs.
function browser() {
  globalThis.WebSocket ??= load("ws");
  return load("socket.io-client/dist/socket.io.js");
}

const sockets = new Map();
const tell = (report) => process.stdout.write(JSON.stringify(report) + "\n");

function connect({ id, url, options }) {
  const socket = io(url, { forceNew: true, ...options });
  sockets.set(id, socket);
  const transport = () => socket.io.engine?.transport?.name;
  socket.on("connect", () => tell({ id, kind: "connect", data: { sid: socket.id, transport: transport(), recovered: socket.recovered } }));
  socket.on("connect_error", (error) => tell({ id, kind: "connect_error", data: { message: error.message, data: error.data } }));
  socket.on("disconnect", (reason) => tell({ id, kind: "disconnect", data: { reason } }));
  socket.onAny((event, ...args) => tell({ id, kind: "event", event, args: args.map(plain) }));
  socket.io.on("open", () => socket.io.engine.on("upgrade", (to) => tell({ id, kind: "upgrade", data: { transport: to.name } })));
  socket.io.on("reconnect", (attempt) => tell({ id, kind: "reconnect", data: { attempt } }));
}

// Bytes are reported and passed as {base64}, optionally with the type to convert them to.
const made = { Blob: (buffer) => new Blob([buffer]), File: (buffer) => new File([buffer], "file"), Uint8Array: (buffer) => new Uint8Array(buffer) };
const plain = (value) => (Buffer.isBuffer(value) ? { base64: value.toString("base64") } : value);
function bytes(value) {
  if (value === null || typeof value !== "object") return value;
  if (typeof value.base64 === "string") {
    const buffer = Buffer.from(value.base64, "base64");
    return value.as ? made[value.as](buffer) : buffer;
  }
  for (const key of Object.keys(value)) value[key] = bytes(value[key]);
  return value;
}

const commands = {
  connect,
  emit({ id, ref, event, args, ack }) {
    const values = args.map(bytes);
    if (ack) sockets.get(id).emit(event, ...values, (...answer) => tell({ id, kind: "ack", ref, args: answer.map(plain) }));
    else sockets.get(id).emit(event, ...values);
  },
  reconnect: ({ id }) => sockets.get(id).connect(),
  disconnect: ({ id }) => sockets.get(id).disconnect(),
  // Breaks the transport; the client must reconnect on its own.
  cut: ({ id }) => sockets.get(id).io.engine.close(),
};

const lines = createInterface({ input: process.stdin });
lines.on("line", (line) => {
  const command = JSON.parse(line);
  commands[command.op](command);
});
lines.on("close", () => process.exit(0));
process.on("uncaughtException", (error) => {
  tell({ kind: "crash", data: String(error.stack) });
  process.exit(1);
});
