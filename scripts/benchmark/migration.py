"""A process moved to another pid namespace, which stands for another machine. Images lie on tmpfs on
both sides and are copied in between. How long nobody ran is what the process itself saw."""
import json
import os
import shlex
import subprocess
import time

from machine import BUILD, CRIU, Failure, back_free_memory
from targets import stamp

MEMDUMP = f"{BUILD}/memdump"
RATE = 2000


class Migration:
    def __init__(self, scene, size):
        self.scene, self.size = scene, size

    def moved(self, way):
        """Moves a fresh target; milliseconds of each part."""
        home = self.scene.directory("/dev/shm")
        here, there = os.path.join(home, "here"), os.path.join(home, "there")
        os.mkdir(there)
        with stamp(self.scene, self.size, rate=RATE, moves=True) as target:
            machine = Machine(self.scene)
            try:
                # Images on both sides, and the process on the other.
                back_free_memory(4 * self.size)
                target.ask("gap")
                parts = way(target.pid, here, there, machine)
                # Its pid is another one's here, if anyone's.
                target.is_moved = True
                total = target.gap()
                if target.ask("check") != "ok":
                    raise Failure("the moved process has lost some of its memory")
            finally:
                machine.close()
                self.scene.remove(home)
        parts["freeze and last round"] = total - sum(parts.values())
        return parts | {"total": total}

    def by_migrate(self, pid, here, there, machine, *receiver_options):
        socket = here + ".socket"
        receiver = self.scene.start(
            machine.argv(
                MEMDUMP, "receive", "--restore", "--json", "--images-dir", there + "/in", "--from",
                f"unix:{socket}", "--criu", CRIU, *receiver_options),
            self.scene.tools, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        receiver.stdout.readline()
        run = self.scene.run(
            [MEMDUMP, "migrate", "--json", "--pid", str(pid), "--to", f"unix:{socket}", "--criu",
             CRIU], accepted=(0, 3))
        receiver.communicate()
        self.scene.tools.remove(receiver)
        events = [json.loads(line) for line in run.text.splitlines()]
        parts = next(event for event in events if event["event"] == "migrated")
        sum_of = lambda *names: sum(parts[name + "_ns"] for name in names) / 1e6
        return {
            "criu dump": sum_of("criu_dump"), "transfer": sum_of("send_round", "transfer"),
            "restore": sum_of("restore", "commit")}

    def by_migrate_lazily(self, pid, here, there, machine):
        return self.by_migrate(pid, here, there, machine, "--lazy")

    def by_memdump(self, pid, here, there, machine):
        def script(last):
            copy = f"cp -r {here}/{last} {here}/criu {here}/memdump-session.img {there}"
            restore = machine.command(
                MEMDUMP, "restore", there, "--criu", CRIU, "--no-check")
            return [copy, restore]

        return self.dumped(pid, here, there, script)

    def by_memdump_lazily(self, pid, here, there, machine):
        """What the process wrote last goes with it; the rest stays here and comes when it runs."""
        images, said = os.path.join(there, "lazy"), os.path.join(there, "served")

        def script(_):
            copy = shlex.join([MEMDUMP, "serve", here, "--lazy-dir", images])
            serve = shlex.join([MEMDUMP, "serve", here, "--address", "127.0.0.1:0"])
            daemon = machine.command(
                CRIU, "lazy-pages", "-D", images, "-W", images, "-o", "lazy.log", "--page-server",
                "--address", "127.0.0.1", "--port")
            restore = machine.command(
                CRIU, "restore", "-D", images, "-W", images, "-o", "restore.log", "--lazy-pages",
                "-d")
            wait = "do sleep 0.001; done"
            return [copy, f"{{ {serve} > {said} & until grep -q Serving {said}; {wait}; "
                    f"{daemon} \"$(sed 's/.*://;q' {said})\" & "
                    f"until [ -e {images}/lazy-pages.socket ]; {wait}; {restore}; }}"]

        return self.dumped(pid, here, there, script)

    def dumped(self, pid, here, there, script):
        """Rounds, then CRIU's part; what `script` says moves the rest while the process is held."""
        last = self.rounds(pid, here, there)
        began = time.time_ns()
        copy, restore = script(last)
        stamps = os.path.join(there, "stamps")
        now = f"date +%s%N >> {stamps}"
        self.scene.run(
            [MEMDUMP, "criu-dump", here, "--criu", CRIU, "--no-sync", "--decide",
             f"{now}; {copy} && {now} && {restore} && {now}"])
        with open(stamps) as file:
            dumped, copied, restored = (int(line) for line in file)
        return {
            "criu dump": (dumped - began) / 1e6, "transfer": (copied - dumped) / 1e6,
            "restore": (restored - copied) / 1e6}

    def rounds(self, pid, here, there):
        """Copies each round when it is complete, but for the last, which is taken in the freeze."""
        child = self.scene.start(
            [MEMDUMP, "predump", "--pid", str(pid), "--images-dir", here, "--compress", "none",
             "--no-sync", "--leave", "stopped", "--json"],
            self.scene.tools, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        last = None
        for line in child.stdout:
            event = json.loads(line)
            if event["event"] == "round" and event["kind"] == "live":
                subprocess.run(["cp", "-r", os.path.join(here, event["name"]), there], check=True)
            elif event["event"] == "round":
                last = event["name"]
        child.wait()
        self.scene.tools.remove(child)
        if child.returncode not in (0, 3) or not last:
            raise Failure(f"predump ended with {child.returncode}")
        return last

    def by_criu(self, pid, here, there, machine):
        os.mkdir(here)
        stamps = [time.monotonic()]
        for argv in ([CRIU, "dump", "-t", str(pid), "-D", here, "-v1", "-o", "dump.log"],
                     ["cp", "-r", here, there],
                     machine.argv(CRIU, "restore", "-D", os.path.join(there, "here"), "-d", "-v1",
                                  "-o", "restore.log")):
            self.scene.run(argv)
            stamps.append(time.monotonic())
        names = ("criu dump", "transfer", "restore")
        return {
            name: (end - begin) * 1e3 for name, begin, end in zip(names, stamps, stamps[1:])}


class Machine:
    """Processes of its own: numbers that are taken here are free there."""

    def __init__(self, scene):
        self.scene = scene
        self.child = scene.start(
            ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "sleep", "infinity"],
            scene.targets)
        deadline = time.monotonic() + 10
        self.first = None
        while time.monotonic() < deadline:
            # setpriv and unshare become one another; the last of them forks.
            with open(f"/proc/{self.child.pid}/task/{self.child.pid}/children") as file:
                first = file.read().split()
            if first and open(f"/proc/{first[0]}/comm").read() == "sleep\n":
                self.first = first[0]
                return
            time.sleep(0.01)
        raise Failure("unshare made no pid namespace")

    def argv(self, *words):
        return ["nsenter", "--target", self.first, "--pid", "--mount", *words]

    def command(self, *words):
        return shlex.join(self.argv(*words))

    def close(self):
        # All its processes end with the first.
        self.scene.end(self.child, self.scene.targets)
