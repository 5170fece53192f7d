"""The echo in a program on asyncio: ``python echo_asyncio.py``."""

import asyncio

from echo import main

asyncio.run(main(b"hello from asyncio\n"))
