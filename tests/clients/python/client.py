"""Stock python-socketio clients, driven by one JSON command a line on standard input; what happens to them is told by one
JSON line each on standard output. Ends with its input."""

import asyncio
import base64
import json
import os
import sys
import traceback

import socketio

clients = {}
running = set()


def tell(**report):
    sys.stdout.write(json.dumps(report, ensure_ascii=False, default=as_base64) + "\n")
    sys.stdout.flush()


def as_base64(value):
    return {"base64": base64.b64encode(value).decode()}


def from_base64(value):
    if isinstance(value, dict):
        if list(value) == ["base64"]:
            return base64.b64decode(value["base64"])
        return {key: from_base64(item) for key, item in value.items()}
    return [from_base64(item) for item in value] if isinstance(value, list) else value


async def connect(id, url, options):
    client = clients[id] = socketio.AsyncClient(reconnection=options.pop("reconnection", True))

    async def connected():
        tell(id=id, kind="connect", data={"sid": client.get_sid(), "transport": client.transport()})

    async def refused(data=None):
        message = data.get("message") if isinstance(data, dict) else str(data)
        tell(id=id, kind="connect_error", data={"message": message, "data": data.get("data") if isinstance(data, dict) else None})

    async def disconnected(reason=None):
        tell(id=id, kind="disconnect", data={"reason": reason})

    async def happened(event, *args):
        tell(id=id, kind="event", event=event, args=args)

    client.on("connect", connected)
    client.on("connect_error", refused)
    client.on("disconnect", disconnected)
    client.on("*", happened)
    headers = options.pop("extraHeaders", {})
    try:
        await client.connect(url, headers=headers, auth=options.get("auth"), transports=options.get("transports"), wait=False)
    except socketio.exceptions.ConnectionError:
        pass  # told by connect_error


async def emit(id, ref, event, args, ack):
    def acknowledged(*answer):
        tell(id=id, kind="ack", ref=ref, args=answer)

    data = tuple(from_base64(item) for item in args)
    try:
        await clients[id].emit(event, data, callback=acknowledged if ack else None)
    except socketio.exceptions.BadNamespaceError:
        tell(id=id, kind="ack", ref=ref, args=[{"ok": False, "error": {"code": "disconnected"}}])


async def disconnect(id):
    await clients[id].disconnect()


async def cut(id):
    """Break the transport; the client must reconnect on its own."""
    await clients[id].eio.disconnect(abort=True)


async def main():
    commands = {"connect": connect, "emit": emit, "disconnect": disconnect, "cut": cut}
    reader = asyncio.StreamReader(limit=64 * 1024 * 1024)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    # The commands of one client run one after another, as an application would await its calls. Clients do not wait for
    # each other.
    queues = {}

    async def work(queue):
        while True:
            command = await queue.get()
            try:
                await commands[command.pop("op")](**command)
            except Exception:
                tell(kind="crash", data=traceback.format_exc())

    while line := await reader.readline():
        command = json.loads(line)
        if command["id"] not in queues:
            queues[command["id"]] = asyncio.Queue()
            running.add(asyncio.create_task(work(queues[command["id"]])))
        queues[command["id"]].put_nowait(command)
    # Exits immediately: the driving process is gone, and an orderly exit would report every open connection.
    os._exit(0)


asyncio.run(main())
