"""What is dumped."""
import base64
import os
import random
import re
import subprocess
import time

from machine import BUILD, Failure

PAGE = 4096


class Workload:
    """A program of Tests/Workloads. It leads a session and holds a fifo and a file, no pipe and no
    terminal: what `criu dump` takes."""

    def __init__(self, scene, mode, moves=False, **options):
        self.scene = scene
        home = scene.directory("/dev/shm")
        fifo, log = os.path.join(home, "commands"), os.path.join(home, "log")
        os.mkfifo(fifo)
        # Opened for reading first, or opening for writing would wait.
        reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
        self.commands = os.open(fifo, os.O_WRONLY | os.O_CLOEXEC)
        os.set_blocking(reader, True)
        self.log = open(log, "w+b")
        words = [f"{key}={value}" for key, value in options.items()]
        self.child = scene.start(
            [f"{BUILD}/workload", mode, "pdeathsig=0", *words], scene.targets, moves, stdin=reader,
            stdout=self.log, stderr=subprocess.DEVNULL, start_new_session=True, cwd="/")
        os.close(reader)
        self.pid = self.child.pid
        self.lines_seen = 0
        # Whether it goes on elsewhere, and its end here says nothing.
        self.is_moved = False
        self.line("ready", seconds=120)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.commands)
        self.scene.end(self.child, self.scene.targets)
        self.log.close()

    def line(self, what, seconds=20):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            lines = os.pread(self.log.fileno(), 1 << 16, 0).split(b"\n")[:-1]
            if len(lines) > self.lines_seen:
                self.lines_seen += 1
                return lines[self.lines_seen - 1].decode()
            if not self.is_moved and self.child.poll() is not None:
                raise Failure(f"the workload ended with {self.child.returncode}")
            time.sleep(0.002)
        raise Failure(f"the workload did not answer `{what}`")

    def ask(self, command):
        os.write(self.commands, command.encode() + b"\n")
        return self.line(command)

    def gap(self):
        """The longest time (ms) that its watcher did not run since this was last asked. The watcher
        sleeps 50 us at a time: one that spins would see each preemption."""
        return int(self.ask("gap").split("=")[1]) / 1e6

    def writes(self):
        return int(re.match(r"writes=(\d+)", self.ask("report"))[1])

    def writes_per_second(self, body):
        """What `body` returns, and the writer's rate meanwhile."""
        before, began = self.writes(), time.monotonic()
        result = body()
        return result, (self.writes() - before) / (time.monotonic() - began)


def stamp(scene, size, rate=0, pattern="uniform", **options):
    """Half-compressible memory, with a writer over all of it or, nine times in ten, a twentieth."""
    shape = {"hot": 100, "cold": 0} if pattern == "uniform" else {"hot": 5, "cold": 10}
    return Workload(scene, "stamp", pages=size // PAGE, rate=rate, gap=2, **shape, **options)


class Redis:
    """A redis-server that listens on a private socket only."""

    def __init__(self, scene, size):
        self.scene = scene
        self.home = scene.directory("/dev/shm")
        self.socket = os.path.join(self.home, "redis.sock")
        self.child = scene.start(
            ["redis-server", "--port", "0", "--unixsocket", self.socket, "--unixsocketperm", "700",
             "--dir", self.home, "--save", "", "--appendonly", "no", "--daemonize", "no"],
            scene.targets, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, cwd="/")
        self.pid = self.child.pid
        for _ in range(100):
            if os.path.exists(self.socket):
                break
            time.sleep(0.1)
        self.keys = size // 1000
        self.fill()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.scene.end(self.child, self.scene.targets)

    def fill(self):
        path = os.path.join(self.home, "values")
        with open(path, "wb") as out:
            for command in values(self.keys):
                out.write(command)
        with open(path, "rb") as commands:
            subprocess.run(
                ["redis-cli", "-s", self.socket, "--pipe"], stdin=commands, check=True,
                capture_output=True)
        os.remove(path)

    def load_command(self, requests):
        """Overwrites the first twentieth of the keys with values as long as they had."""
        value = base64.b64encode(random.Random(3).randbytes(735)).decode()
        return ["redis-benchmark", "-s", self.socket, "-c", "4", "-n", str(requests), "-r",
                str(max(1, self.keys // 20)), "--precision", "3", "SET", "key:__rand_int__", value]

    @staticmethod
    def latencies(text):
        """Throughput (1/s) and percentiles (ms) from redis-benchmark's report."""
        throughput = re.search(r"throughput summary: ([\d.]+)", text)
        summary = re.search(r"avg\s+min\s+p50\s+p95\s+p99\s+max\s+([\d. ]+)", text)
        if not throughput or not summary:
            raise Failure(f"redis-benchmark said: {text[-300:]}")
        _, _, p50, _, p99, longest = (float(word) for word in summary[1].split()[:6])
        p999 = longest
        for percent, milliseconds in re.findall(r"([\d.]+)% <= ([\d.]+) milliseconds", text):
            if float(percent) >= 99.9:
                p999 = min(p999, float(milliseconds))
        return {"per_second": float(throughput[1]), "p50": p50, "p99": p99, "p999": p999,
                "max": longest}


def values(count):
    """Sessions as a web shop would keep them: half words, half tokens."""
    rng = random.Random(20)
    words = "blue green cotton wool shirt jacket boots lamp table chair large small sale new".split()
    for index in range(count):
        items = ",".join(
            '{"item":"%s %s","quantity":%d,"price_cents":%d}'
            % (rng.choice(words), rng.choice(words), rng.randrange(1, 9), rng.randrange(99, 99999))
            for _ in range(8))
        token = base64.b64encode(rng.randbytes(390))
        value = (b'{"user":%d,"cart":[' % index) + items.encode() + b'],"token":"' + token + b'"}'
        key = b"key:%012d" % index
        yield b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(key), key, len(value), value)
