"""memdump, its peers, and the bare limits."""
import json
import os
import shutil
import time

from machine import BUILD, CRIU, Failure


class Tools:
    def __init__(self, scene):
        self.scene = scene
        self.memory = scene.directory("/dev/shm")
        self.disk = scene.directory("/var/tmp")
        # Every dump's freeze and peak memory: for the bars that speak of all runs.
        self.dumps = []

    def limit(self, *arguments):
        """A command of the program `benchmarks`."""
        words = [str(word) for word in arguments]
        return json.loads(self.scene.run([f"{BUILD}/benchmarks", *words]).text)

    def memdump(self, pid, *options, size=0, on_disk=False, keep=False):
        """A predump. On tmpfs nothing is synced."""
        images = os.path.join(self.disk if on_disk else self.memory, "images")
        shutil.rmtree(images, ignore_errors=True)
        argv = [f"{BUILD}/memdump", "predump", "--pid", str(pid), "--images-dir", images, "--json"]
        run = self.scene.run(
            [*argv, *([] if on_disk else ["--no-sync"]), *options], accepted=(0, 3))
        events = [json.loads(line) for line in run.text.splitlines()]
        rounds = [event for event in events if event["event"] == "round"]
        summary = next(event for event in events if event["event"] == "summary")
        freeze = summary.get("freeze")
        first = rounds[0]
        live = [one for one in rounds if one["kind"] == "live"]
        result = {
            "size": size,
            "wall": run.wall,
            "peak_rss": run.peak_rss,
            "cpu": run.processor_seconds,
            "rounds": len(rounds),
            "first_gbps": first["bytes_in"] / first["wall_ns"],
            "first_ns": first["wall_ns"],
            "stopped_ns": next(e for e in events if e["event"] == "attached")["stopped_ns"],
            "written_per_unique": summary["bytes_in"] / max(
                summary["bytes_in"] - summary["bytes_written_again"], 1),
            "ratio": summary.get("ratio"),
            "live_rounds": len(live),
        }
        if freeze:
            result |= {
                "frozen_ms": freeze["frozen_ns"] / 1e6,
                "pages": freeze["pages"],
                "predicted_ms": freeze["predicted_ns"] / 1e6,
                "error": abs(freeze["predicted_ns"] - freeze["frozen_ns"]) / freeze["frozen_ns"],
            }
        self.dumps.append(result)
        if not keep:
            shutil.rmtree(images)
        return result

    def images(self):
        return os.path.join(self.memory, "images")

    def criu(self, pid):
        """`criu dump --leave-running`, to tmpfs. Its own word for how long the target stood still."""
        images = os.path.join(self.memory, "criu")
        os.mkdir(images)
        try:
            run = self.scene.run(
                [CRIU, "dump", "-t", str(pid), "-D", images, "--leave-running", "-v1",
                 "-o", "dump.log"])
            with open(os.path.join(images, "stats-dump"), "rb") as file:
                statistics = dump_statistics(file.read())
        except Failure as failure:
            log = os.path.join(images, "dump.log")
            tail = open(log).read()[-600:] if os.path.exists(log) else ""
            raise Failure(f"{failure}\n{tail}") from None
        finally:
            shutil.rmtree(images)
        return {"wall": run.wall, "frozen_ms": statistics[2] / 1e3,
                "freezing_ms": statistics[1] / 1e3}

    def gcore(self, pid):
        prefix = os.path.join(self.memory, "core")
        run = self.scene.run(["gcore", "-o", prefix, str(pid)])
        os.remove(f"{prefix}.{pid}")
        return {"wall": run.wall}


def dump_statistics(data):
    """The fields of CRIU's stats-dump by their numbers, 1 and 2 of them microseconds of freezing and
    frozen, 7 the pages written: two magics, a length, and a record whose field 1 holds these."""
    position = 12

    def number():
        nonlocal position
        value = shift = 0
        while True:
            byte = data[position]
            position += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    if number() != 0x0A:
        raise Failure("stats-dump does not begin with a dump's record")
    end = number() + position
    fields = {}
    while position < end:
        tag = number()
        fields[tag >> 3] = number()
    return fields
