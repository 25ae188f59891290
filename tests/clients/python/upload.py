"""Uploads files with aiohttp as its users do: reads {url, token, roomId, files: [{by, name, type, base64}]} as JSON from standard
input, and prints [{status, body}]."""

import asyncio
import base64
import json
import pathlib
import sys
import tempfile

import aiohttp


async def pieces(content):
    """A body of unknown length."""
    for start in range(0, len(content), 1000):
        yield content[start : start + 1000]


def form(by, content, name, type, room, directory):
    # Without quoting, names are sent unchanged.
    data = aiohttp.FormData(quote_fields=by != "aiohttp unquoted")
    data.add_field("roomId", room)
    if by == "aiohttp and an open file":
        # The name is that of the file on disk.
        path = pathlib.Path(directory, name)
        path.write_bytes(content)
        data.add_field("file", path.open("rb"), content_type=type)
    else:
        value = pieces(content) if by == "aiohttp and a stream" else content
        data.add_field("file", value, filename=name, content_type=type)
    return data


async def main(asked, directory):
    headers = {"Authorization": f"Bearer {asked['token']}"}
    answers = []
    async with aiohttp.ClientSession(asked["url"], headers=headers) as session:
        for file in asked["files"]:
            data = form(file["by"], base64.b64decode(file["base64"]), file["name"], file["type"], asked["roomId"], directory)
            async with session.post("/api/files/upload", data=data) as answer:
                answers.append({"status": answer.status, "body": await answer.json(content_type=None)})
    print(json.dumps(answers))


with tempfile.TemporaryDirectory() as directory:
    asyncio.run(main(json.load(sys.stdin), directory))
