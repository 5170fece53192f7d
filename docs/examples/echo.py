"""An echo over the overlay, written once: echo_twisted.py and echo_asyncio.py run the same lines."""

from __future__ import annotations

import tempfile

from two_nodes import write_files

import seamless


async def echo(connection: seamless.Connection) -> None:
    """Send back what comes, no faster than it is taken."""
    while data := await connection.read():
        connection.write(data)
        await connection.drain()
    connection.close()


async def main(greeting: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        configuration, keys = write_files(folder)
        src = await seamless.start(configuration, "src", keys["src"])
        dst = await seamless.start(configuration, "dst", keys["dst"])
        await seamless.listen(dst, "echo", echo)

        connection = await seamless.connect(src, "dst", "echo")
        connection.write(greeting)
        connection.finish()
        while data := await connection.read():
            print(data.decode(), end="")
        connection.close()

        try:
            await seamless.connect(src, "dst", "no such service")
        except ConnectionRefusedError as error:
            print(error)
        await seamless.stop(src)
        await seamless.stop(dst)
