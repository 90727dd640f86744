"""A process that writes transactions of a row and a balance each, as the worker does.

`python writing_transactions.py BOOTSTRAP FIRST COUNT KEYS` prints the number of each transaction
that was acknowledged. It ends at the first that was not; a process of its own, since a client whose
broker is gone leaves much open.
"""

import asyncio
import os
import sys

from aiokafka import AIOKafkaProducer

VALUE = "x" * 2_000
GIVE_UP_S = 8.0


async def write(bootstrap: str, first: int, count: int, keys: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, transactional_id="writer")
    async with asyncio.timeout(GIVE_UP_S * 4):
        await producer.start()
    for number in range(first, first + count):
        async with asyncio.timeout(GIVE_UP_S):
            await producer.begin_transaction()
            for topic, key in (("rows", f"r{number}"), ("balances", f"b{number % keys}")):
                value = f"{number} {VALUE}".encode()
                await producer.send(topic, value, key.encode(), partition=0)
            await producer.commit_transaction()
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    bootstrap, *numbers = sys.argv[1:]
    try:
        asyncio.run(write(bootstrap, *map(int, numbers)))
    finally:
        sys.stdout.flush()
        os._exit(0 if sys.exc_info()[0] is None else 1)
