"""Keeps a server busy: load.py redis|memcached SOCKET.

Sets and gets values all the time; redis also has to save itself in a child again and again. Prints
"ready" once the server holds data; then, for each line of standard input, how many requests have
been answered. Ends with 1 if a value is not what was stored."""

import os
import random
import socket
import sys
import threading
import time

KEYS = 2000
answers = 0


def connect(path):
    deadline = time.monotonic() + 30
    while True:
        try:
            connection = socket.socket(socket.AF_UNIX)
            connection.connect(path)
            return connection.makefile("rwb")
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


class Redis:
    def __init__(self, stream):
        self.stream = stream

    def ask(self, *words):
        self.stream.write(b"*%d\r\n" % len(words))
        for word in words:
            self.stream.write(b"$%d\r\n%s\r\n" % (len(word), word))
        self.stream.flush()
        return self.stream.readline()

    def set(self, key, value):
        return self.ask(b"SET", key, value) == b"+OK\r\n"

    def get(self, key):
        length = int(self.ask(b"GET", key)[1:])
        return self.stream.read(length + 2)[:-2] if length >= 0 else None

    def save(self):
        # It says no while a child still saves.
        return self.ask(b"BGSAVE") != b""


class Memcached:
    def __init__(self, stream):
        self.stream = stream

    def set(self, key, value):
        self.stream.write(b"set %s 0 0 %d\r\n%s\r\n" % (key, len(value), value))
        self.stream.flush()
        return self.stream.readline() == b"STORED\r\n"

    def get(self, key):
        self.stream.write(b"get %s\r\n" % key)
        self.stream.flush()
        words = self.stream.readline().split()
        if words[0] != b"VALUE":
            return None
        value = self.stream.read(int(words[3]) + 2)[:-2]
        return value if self.stream.readline() == b"END\r\n" else None

    def save(self):
        return True


def work(server):
    global answers
    versions = [0] * KEYS
    value = lambda key: b"%d.%d;" % (key, versions[key]) * 1000
    saved = time.monotonic()
    while True:
        key = answers if answers < KEYS else random.randrange(KEYS)
        name = b"key:%d" % key
        if answers >= KEYS and random.random() < 0.2:
            good = server.get(name) == value(key)
        else:
            versions[key] += 1
            good = server.set(name, value(key))
        if time.monotonic() - saved > 0.2:
            good = good and server.save()
            saved = time.monotonic()
        if not good:
            print(f"wrong answer for key {key}", file=sys.stderr)
            os._exit(1)
        answers += 1
        if answers == KEYS:
            print("ready", flush=True)


servers = {"redis": Redis, "memcached": Memcached}
server = servers[sys.argv[1]](connect(sys.argv[2]))
threading.Thread(target=work, args=(server,), daemon=True).start()
for _ in sys.stdin:
    print(answers, flush=True)
