"""Maps, grows, moves and drops memory. Prints "ready" once there is some; then, for each line of
standard input, its steps so far. Ends with 1 if memory does not hold what was stored there."""

import mmap
import os
import random
import sys
import threading

PAGE = mmap.PAGESIZE
steps = 0


def check(slot, memory, length):
    if memory[:length] != bytes([slot]) * length:
        print(f"slot {slot} does not hold what it held", file=sys.stderr)
        os._exit(1)


def churn():
    global steps
    arrays, maps = {}, {}
    while True:
        slot = random.randrange(64)
        if slot in arrays:
            check(slot, arrays[slot], len(arrays[slot]))
        # Grown bit by bit, as far as realloc goes.
        arrays[slot] = bytearray()
        for _ in range(random.randrange(1, 8)):
            arrays[slot] += bytes([slot]) * random.randrange(1, 64 << 10)

        pages = random.randrange(1, 64)
        if slot in maps:
            memory = maps.pop(slot)
            kept = min(pages * PAGE, len(memory))
            memory.resize(pages * PAGE)
            check(slot, memory, kept)
            if pages % 4 == 0:
                memory.close()
        else:
            memory = mmap.mmap(-1, pages * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if not memory.closed:
            memory[:] = bytes([slot]) * len(memory)
            maps[slot] = memory
        steps += 1
        if steps == 500:
            print("ready", flush=True)


threading.Thread(target=churn, daemon=True).start()
for _ in sys.stdin:
    print(steps, flush=True)
