"""Processes and directories that end with the benchmark, whatever ends it."""
import mmap
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time

BUILD = os.environ["MEMDUMP_BUILD"]
CRIU = os.environ["MEMDUMP_CRIU"]


class Failure(Exception):
    """The benchmark cannot go on."""


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def back_free_memory(size):
    """Has the host back so many bytes of free memory. A virtual machine's host may take back what is
    free (free page reporting, a balloon); who uses it next would wait for the host, up to five times
    as long as for the work itself, by turns whoever is measured."""
    if size == 0:
        return
    # By a process of its own: those that are started later would inherit the peak of this one's.
    child = os.fork()
    if child == 0:
        mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
        os._exit(0)
    os.waitpid(child, 0)


class Scene:
    """Owns all that is started and written."""

    def __init__(self):
        self.tools = []
        self.targets = []
        self.directories = []
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _: sys.exit(128 + number))

    def directory(self, parent):
        path = tempfile.mkdtemp(prefix="memdump-bench.", dir=parent)
        self.directories.append(path)
        return path

    def remove(self, path):
        shutil.rmtree(path, ignore_errors=True)
        self.directories.remove(path)

    def start(self, argv, into, moves=False, **options):
        """Starts a child that dies with this program even if that is killed; not one that moves: it
        would die with the criu that restores it."""
        guard = [] if moves else ["setpriv", "--pdeathsig", "KILL"]
        child = subprocess.Popen([*guard, *argv], **options)
        into.append(child)
        return child

    def end(self, child, into, number=signal.SIGKILL):
        """Children are only ever signalled before they are waited for: the pid is still theirs."""
        if child.returncode is None:
            child.send_signal(number)
            try:
                child.wait(timeout=20)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        into.remove(child)

    def close(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        # memdump first: it lets go of its target when it is asked to end.
        for child in list(self.tools):
            self.end(child, self.tools, signal.SIGTERM)
        for child in list(self.targets):
            self.end(child, self.targets)
        for path in self.directories:
            shutil.rmtree(path, ignore_errors=True)

    def run(self, argv, accepted=(0,), **options):
        """Runs a tool to its end."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            began = time.monotonic()
            child = self.start(
                argv, self.tools, stdin=subprocess.DEVNULL, stdout=out, stderr=err, **options)
            _, status, usage = os.wait4(child.pid, 0)
            wall = time.monotonic() - began
            child.returncode = os.waitstatus_to_exitcode(status)
            self.tools.remove(child)
            out.seek(0)
            err.seek(0)
            text, errors = (file.read().decode(errors="replace") for file in (out, err))
        if child.returncode not in accepted:
            raise Failure(
                f"{' '.join(argv)} ended with {child.returncode}: {(errors or text)[-600:]}")
        return Run(text, wall, usage)


class Run:
    """A tool that ended well."""

    def __init__(self, text, wall, usage):
        self.text = text
        self.wall = wall
        # What setpriv had before it became the tool counts too: about 4 MB.
        self.peak_rss = usage.ru_maxrss * 1024
        self.processor_seconds = usage.ru_utime + usage.ru_stime


def describe():
    """Which machine this is."""

    def field(path, name):
        with open(path) as file:
            for line in file:
                if line.startswith(name):
                    return line.split(":", 1)[1].strip()
        return "unknown"

    def first_line(*argv):
        try:
            done = subprocess.run(argv, capture_output=True, text=True)
            return ((done.stdout or done.stderr).splitlines() or ["unknown"])[0]
        except OSError:
            return "absent"

    return {
        "processor": field("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "memory_gib": round(int(field("/proc/meminfo", "MemTotal").split()[0]) / 2**20, 1),
        "load_average": os.getloadavg()[0],
        "huge_pages": open("/sys/kernel/mm/transparent_hugepage/enabled").read().strip(),
        "criu": first_line(CRIU, "--version"),
        "gdb": first_line("gdb", "--version"),
        "redis": first_line("redis-server", "--version"),
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
