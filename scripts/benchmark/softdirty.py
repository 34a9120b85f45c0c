"""Run by scripts/bench-softdirty.sh: the table of what its guest wrote to the logs in a directory."""
import glob
import json
import os
import sys

from machine import describe, say
from report import Report, median
from tools import dump_statistics


def samples(path):
    """Pairs of what was measured and the figures. The guest's own lines tell what the target saw,
    and CRIU's statistics; memdump's events stand between them."""
    live = 0
    with open(path) as file:
        for line in file:
            if line.startswith("sample: "):
                name, *words = line.split()[1:]
                fields = dict(word.split("=") for word in words)
                if "begin" in fields:
                    seconds = float(fields["end"]) - float(fields["begin"])
                    yield name, {"wall_ms": seconds * 1e3, "criu_ms": int(fields["criu_ns"]) / 1e6}
                    continue
                sample = {"saw_ms": int(fields["saw_ns"]) / 1e6}
                if name == "memdump-last":
                    sample["saw_ms"] -= command / 1e6
                if "stats" in fields:
                    of = dump_statistics(bytes.fromhex(fields["stats"]))
                    sample |= {"frozen_ms": of[2] / 1e3, "pages": of[7]}
                yield name, sample
            elif line.startswith('{"'):
                event = json.loads(line)
                if event["event"] == "attached":
                    yield "memdump-attach", {"frozen_ms": event["stopped_ns"] / 1e6}
                elif event["event"] == "thawed":
                    # The guest's own command runs in the freeze, too, to do nothing.
                    command = event["command_ns"]
                    yield "memdump-freeze", {
                        "frozen_ms": (event["frozen_ns"] - command) / 1e6, "pages": event["pages"]}
                elif event["event"] == "round" and event["kind"] == "live":
                    live = live % 3 + 1
                    yield f"memdump-{live}-event", {"pages": event["pages_stored"]}


def main():
    out, release, load = sys.argv[1:]
    runs = {}
    mebibytes = 0
    for path in sorted(glob.glob(os.path.join(out, "run-*.log"))):
        for name, sample in samples(path):
            runs.setdefault(name, []).append(sample)
        mebibytes = sum(int(word.split("=")[1]) for word in open(path).readline().split()
                        if word.startswith("mebibytes="))
    of = lambda name, key: median(run[key] for run in runs[name])
    repetitions = len(runs["memdump-freeze"])
    machine = describe() | {"kernel": f"{release}, emulated", "load_average": float(load)}
    report = Report(machine, quick=repetitions < 5 or mebibytes < 1024)
    report.data |= {"repetitions": repetitions, "mebibytes": mebibytes}
    report.samples("soft-dirty", runs)

    section = f"last freeze of a chain of 3 rounds, {mebibytes} MiB, medians of {repetitions}"
    for name, label in (("criu-last", "criu dump --prev-images-dir"), ("memdump-freeze", "memdump")):
        saw = "memdump-last" if name == "memdump-freeze" else name
        report.row(section, label, **{
            "frozen ms": of(name, "frozen_ms"), "target saw ms": of(saw, "saw_ms"),
            "pages": of(name, "pages")})
    section = "rounds"
    for number in (1, 2, 3):
        report.row(section, f"criu pre-dump {number}", **{
            "frozen ms": of(f"criu-{number}", "frozen_ms"),
            "target saw ms": of(f"criu-{number}", "saw_ms"), "pages": of(f"criu-{number}", "pages")})
    report.row(section, "memdump, attach", **{"frozen ms": of("memdump-attach", "frozen_ms")})
    for number in (1, 2, 3):
        report.row(section, f"memdump, live round {number}", **{
            "frozen ms": 0, "target saw ms": of(f"memdump-{number}", "saw_ms"),
            "pages": of(f"memdump-{number}-event", "pages")})
    for name, label in (("undisturbed", "undisturbed"), ("busy", "both cores busy with sha256sum")):
        report.row(section, label, **{"target saw ms": of(name, "saw_ms")})
    section = "CRIU's part of a freeze, the pages left out"
    for way in ("lazy", "soft-dirty", "stream"):
        report.row(section, way, **{
            "criu ms": of(f"way-{way}", "criu_ms"), "with memdump's ms": of(f"way-{way}", "wall_ms")})

    criu, memdump = of("criu-last", "frozen_ms"), of("memdump-freeze", "frozen_ms")
    report.bar(
        "last freeze: criu's chain / memdump", criu / memdump, least=8,
        detail=f"{memdump:.1f} ms for {of('memdump-freeze', 'pages'):,.0f} pages, criu {criu:.0f} "
               f"ms for {of('criu-last', 'pages'):,.0f}")
    alone, busy = of("undisturbed", "saw_ms"), of("busy", "saw_ms")
    live = max(of(f"memdump-{number}", "saw_ms") for number in (1, 2, 3))
    predump = max(of(f"criu-{number}", "saw_ms") for number in (1, 2, 3))
    report.bar(
        "gap in live rounds / undisturbed", live / alone, most=1.25,
        detail=f"{live:.1f} ms; undisturbed {alone:.1f} ms, cores busy {busy:.1f} ms, criu "
               f"pre-dump {predump:.0f} ms")
    for name, text in (("table.txt", report.table()), ("results.json", report.json())):
        with open(os.path.join(out, name), "w") as file:
            file.write(text)
    print(report.table(), end="")
    say(f"{out}/results.json has every sample")


main()
