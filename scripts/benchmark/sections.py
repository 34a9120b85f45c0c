"""What is measured. Whatever is compared is measured in turn, in one run: A B A B."""
import time

from machine import Failure, back_free_memory, say
from report import median
from migration import RATE, Migration
from targets import Redis, Workload, stamp
from transfer import LINKS, Transfer

MIB = 1 << 20
GIB = 1 << 30


def name_of(size):
    return f"{size // GIB} GiB" if size >= GIB else f"{size // MIB} MiB"


class Sections:
    def __init__(self, scene, tools, report, quick):
        self.scene, self.tools, self.report, self.quick = scene, tools, report, quick
        self.repetitions = 2 if quick else 5
        self.main_size = 256 * MIB if quick else GIB
        self.sizes = [256 * MIB] if quick else [256 * MIB, GIB, 4 * GIB]
        # Seconds by size, of targets without a writer.
        self.first_rounds = {}

    def in_turn(self, size=None, **bodies):
        """Runs the bodies A B A B, each with as much free memory at hand as an image of a target of
        `size` bytes takes, and a quarter more (0: as it is); the results of each by its name."""
        results = {name: [] for name in bodies}
        for _ in range(self.repetitions):
            for name, body in bodies.items():
                back_free_memory((self.main_size if size is None else size) * 5 // 4)
                results[name].append(body())
        return results

    def run(self, wanted):
        """The sections of these names, or all."""
        sections = {section.__name__: section for section in (
            self.full_round, self.zero_heavy, self.inner_loops, self.scan, self.freeze,
            self.matrix, self.gaps, self.throughput, self.redis, self.migrate,
            self.transfer)}
        for name in wanted:
            if name not in sections:
                raise Failure(f"no section {name}; there are {' '.join(sections)}")
        for name in wanted or sections:
            say(name.replace("_", " "))
            sections[name]()
        self.over_all_runs()

    def first_round_seconds(self):
        """How long the first round of the main target takes."""
        if not self.first_rounds.get(self.main_size):
            with stamp(self.scene, self.main_size) as target:
                dump = self.tools.memdump(target.pid, size=self.main_size)
                self.first_rounds[self.main_size] = dump["first_ns"] / 1e9
        return self.first_rounds[self.main_size]

    # A target that writes nothing: the first round, and the peers.

    def full_round(self):
        size, tools = self.main_size, self.tools

        def seen(body):
            """With the longest gap that the target saw."""
            target.ask("gap")
            result = body()
            return result | {"gap_ms": target.gap()}

        with stamp(self.scene, size) as target:
            pid = target.pid
            runs = self.in_turn(
                limit=lambda: tools.limit("limit", pid, 1),
                read=lambda: tools.limit("read", pid, 1),
                lz4=lambda: tools.limit("lz4", pid, 1),
                store=lambda: tools.limit("store", pid, 1),
                limit_ours=lambda: tools.limit("limit-ours", pid, 1),
                store_ours=lambda: tools.limit("store-ours", pid, 1),
                memdump=lambda: seen(lambda: tools.memdump(pid, size=size, keep=True)),
                verify=lambda: tools.limit("verify", tools.images(), 1),
                like_criu=lambda: tools.memdump(
                    pid, "--compress-block", "256KiB", "--compress-acceleration", "1", size=size),
                plain=lambda: seen(
                    lambda: tools.memdump(pid, "--compress", "none", size=size, keep=True)),
                verify_plain=lambda: tools.limit("verify", tools.images(), 1),
                criu=lambda: seen(lambda: tools.criu(pid)),
                gcore=lambda: seen(lambda: tools.gcore(pid)),
                disk=lambda: seen(lambda: tools.memdump(pid, size=size, on_disk=True)),
            )
        self.report.samples("full round", runs)
        of = lambda name, key: median(run[key] for run in runs[name])
        section = f"{name_of(size)} half-compressible, no writer (medians of {self.repetitions})"
        for name, label in (("read", "reading alone, 1 thread"),
                            ("lz4", "LZ4 as CRIU does it alone, all cores"),
                            ("limit", "reading + LZ4 as CRIU does it, all cores"),
                            ("store", "the same, and writing to memory files"),
                            ("limit_ours", "reading + LZ4 as memdump does it, all cores"),
                            ("store_ours", "the same, and writing to memory files")):
            self.report.row(section, f"limit: {label}", **{"GB/s": of(name, "gb_per_second")})
        for name, label in (("memdump", "memdump, lz4, tmpfs"), ("plain", "memdump, none, tmpfs"),
                            ("disk", "memdump, lz4, disk, fsync")):
            self.report.row(
                section, label, **{
                    "first round GB/s": of(name, "first_gbps"), "wall s": of(name, "wall"),
                    "frozen ms": of(name, "frozen_ms"), "target saw ms": of(name, "gap_ms"),
                    "peak MiB": of(name, "peak_rss") / MIB})
        self.report.row(section, "criu dump, tmpfs", **{
            "wall s": of("criu", "wall"), "frozen ms": of("criu", "frozen_ms"),
            "target saw ms": of("criu", "gap_ms")})
        self.report.row(section, "gcore, tmpfs", **{
            "wall s": of("gcore", "wall"), "target saw ms": of("gcore", "gap_ms")})
        for name, label in (("verify", "restore-check, lz4"), ("verify_plain", "none")):
            self.report.row(section, label, **{
                "GB/s": of(name, "gb_per_second"), "per core": of(name, "gb_per_core_second"),
                "peak MiB": of(name, "peak_rss_bytes") / MIB})
        self.first_rounds[size] = of("memdump", "first_ns") / 1e9

        size_name = name_of(size)
        self.report.row(section, "memdump, lz4 as CRIU does it, tmpfs", **{
            "first round GB/s": of("like_criu", "first_gbps")})
        for name, limit, label in (("memdump", "limit", "LZ4 as CRIU does it"),
                                   ("like_criu", "limit", "both with LZ4 as CRIU does it"),
                                   ("memdump", "limit_ours", "both with LZ4 as memdump does it"),
                                   ("memdump", "store_ours", "the same, with writing")):
            reached, most = of(name, "first_gbps"), of(limit, "gb_per_second")
            self.report.bar(
                f"first round, {size_name} / limit, {label}", reached / most, least=0.85,
                detail=f"{reached:.2f} of {most:.2f} GB/s")
        self.report.bar(
            "whole dump, --compress none / criu dump, wall", of("plain", "wall")
            / of("criu", "wall"), most=1.3,
            detail=f"{of('plain', 'wall'):.2f} s of {of('criu', 'wall'):.2f} s")
        worst = min(of("verify", "gb_per_core_second"), of("verify_plain", "gb_per_core_second"))
        self.report.bar("restore-check, GB/s of memory per core", worst, least=1.0)

    def zero_heavy(self):
        size, tools = self.main_size, self.tools
        with Workload(self.scene, "idle", pages=size // 4096, zero=90) as target:
            runs = self.in_turn(
                read=lambda: tools.limit("read", target.pid, 1),
                limit=lambda: tools.limit("limit", target.pid, 1),
                memdump=lambda: tools.memdump(target.pid, size=size))
        self.report.samples("zero-heavy", runs)
        memdump = median(run["first_gbps"] for run in runs["memdump"])
        read = median(run["gb_per_second"] for run in runs["read"])
        limit = median(run["gb_per_second"] for run in runs["limit"])
        section = f"{name_of(size)}, 90 % of it zeros"
        self.report.row(section, "limit: reading alone, 1 thread", **{"GB/s": read})
        self.report.row(section, "limit: reading + LZ4, all cores", **{"GB/s": limit})
        self.report.row(section, "memdump, lz4, tmpfs", **{"first round GB/s": memdump})
        self.report.bar(
            "first round, 90 % zeros / reading alone", memdump / read, least=0.8,
            detail=f"{memdump:.2f} of {read:.2f} GB/s")

    def inner_loops(self):
        memcpy = self.tools.limit("memcpy", self.repetitions)
        encode = self.tools.limit("encode", self.repetitions)
        self.report.samples("inner loops", [memcpy, encode])
        section = "inner loops, one thread"
        self.report.row(section, "memcpy", **{"GB/s": memcpy["gb_per_second"]})
        for row in encode["rows"]:
            self.report.row(
                section, f"encode {row['data']}, {row['segment_pages']} pages",
                **{"GB/s": row["encode_gb_per_second"],
                   "mallocs a chunk": row["mallocs_per_chunk"]})
        self.report.bar(
            "mallocs in appending and encoding",
            max(row["mallocs_per_chunk"] for row in encode["rows"]), most=0)
        first = self.tools.limit("first-write", self.repetitions)
        self.report.samples("first write", first)
        self.report.row(section, "the kernel's part of a first write", **{
            "protected ns": first["protected_ns_per_page"],
            "unprotected ns": first["unprotected_ns_per_page"]})

    def scan(self):
        size, tools, count = self.main_size, self.tools, 4 * self.repetitions
        pages = size // 4096
        found = {}
        with stamp(self.scene, size, rate=20000) as target:
            found["whole"] = tools.limit("scan", target.pid, count)
            found["dirty"] = tools.limit("dirty", target.pid, count)
            found["freeze, dirty"] = tools.limit("frozen", target.pid, count)
            attach = tools.limit("attach", target.pid, count)
        with stamp(self.scene, size) as target:
            found["freeze, clean"] = tools.limit("frozen", target.pid, count)
            still = tools.limit("still", target.pid, count)
        with Workload(self.scene, "idle", pages=pages, every=2) as target:
            found["each second page"] = tools.limit("scan", target.pid, count)
        with Workload(self.scene, "idle", pages=16, reserve="16384G") as target:
            found["16 TiB reserved"] = tools.limit("scan", target.pid, count)
        self.report.samples("scan", found | {"attach": attach, "still": still})
        section = f"scan of {name_of(size)}, and attaching"
        for name, one in found.items():
            self.report.row(section, name, **{
                "regions": one["regions"], "bare ioctl us": one["bare_ns"] / 1e3,
                "memdump us": one["memdump_ns"] / 1e3, "ratio": one["ratio"],
                **({"mallocs": one["mallocs_per_scan"]} if "mallocs_per_scan" in one
                   else {"all threads us": one["all_threads_ns"] / 1e3})})
        self.report.row(section, "freeze, still", **{
            "bare ioctl us": still["bare_ns"] / 1e3, "memdump us": still["memdump_ns"] / 1e3,
            "ratio": still["ratio"], "all threads us": still["all_threads_ns"] / 1e3})
        self.report.row(section, "attach", **{
            "total ms": attach["total_ns"] / 1e6, "stopped ms": attach["stopped_ns"] / 1e6,
            "longest stop ms": max(attach["stopped_samples"]) / 1e6})
        self.report.bar(
            "scan / bare ioctl, worst case",
            max(one["ratio"] for name, one in found.items() if "TiB" not in name), most=1.3,
            detail=", ".join(f"{name} {one['ratio']:.2f}" for name, one in found.items()))
        scattered = found["each second page"]
        self.report.bar(
            "mallocs a region, scan of scattered pages",
            scattered["mallocs_per_scan"] / scattered["regions"], most=0.01,
            detail=f"{scattered['mallocs_per_scan']:,} for {scattered['regions']:,.0f} regions")
        self.report.bar("attach, ms in all", attach["total_ns"] / 1e6, most=5)
        self.report.bar("attach, ms stopped", attach["stopped_ns"] / 1e6, most=1)

    # The last round.

    def freeze(self):
        for wanted, share in ((3000, 30), (30000, 8)):
            self.freeze_with(wanted, share)

    def freeze_with(self, wanted, share):
        """Freezes after exactly one live round: what was written during it is what is dirty."""
        size, tools = self.main_size, self.tools
        once = ("--max-rounds", "1", "--target-downtime", "1us")
        rate = wanted / self.first_round_seconds()
        # The writer slows the round down, so its rate is corrected once.
        with stamp(self.scene, size, rate=int(rate)) as target:
            pages = median(tools.memdump(target.pid, *once, size=size)["pages"] for _ in range(2))
        rate *= wanted / max(pages, 1)
        with stamp(self.scene, size, rate=int(rate)) as target:
            runs = self.in_turn(
                memdump=lambda: tools.memdump(target.pid, *once, size=size),
                criu=lambda: tools.criu(target.pid))
        self.report.samples(f"freeze {wanted}", runs)
        frozen = median(run["frozen_ms"] for run in runs["memdump"])
        pages = median(run["pages"] for run in runs["memdump"])
        criu = median(run["frozen_ms"] for run in runs["criu"])
        self.report.row(
            f"last round, {name_of(size)}, dirty pages scattered over all of it",
            f"about {wanted:,} dirty pages", **{
                "pages": pages, "memdump frozen ms": frozen, "us a page": frozen * 1e3 / pages,
                "criu frozen ms": criu, "criu / memdump": criu / frozen})
        self.report.bar(
            f"freeze at {wanted:,} pages: criu dump / memdump", criu / frozen, least=share,
            detail=f"{frozen:.1f} ms for {pages:,.0f} pages, criu {criu:.0f} ms")

    # Sizes, rates and shapes of writing.

    def matrix(self):
        rates = [0, 20000] if self.quick else [0, 2000, 20000, 100000]
        for size in self.sizes:
            for rate in rates:
                patterns = ["hot"] if self.quick else ["hot", "uniform"]
                for pattern in patterns if rate else ["-"]:
                    self.cell(size, rate, pattern)

    def cell(self, size, rate, pattern):
        tools = self.tools
        options = ("--target-downtime", "20ms")
        with stamp(self.scene, size, rate, "uniform" if pattern == "-" else pattern) as target:

            def memdump():
                result, writes = target.writes_per_second(
                    lambda: tools.memdump(target.pid, *options, size=size))
                return result | {"writes": writes}

            runs = self.in_turn(
                size, memdump=memdump, criu=lambda: tools.criu(target.pid))
        name = f"{name_of(size)}, {rate:,}/s {pattern}"
        self.report.samples(f"matrix {name}", runs)
        of = lambda tool, key: median(run[key] for run in runs[tool])
        if rate == 0:
            self.first_rounds[size] = of("memdump", "first_ns") / 1e9
        self.report.row("all rounds, --target-downtime 20ms; criu dump beside it", name, **{
            "rounds": of("memdump", "rounds"), "wall s": of("memdump", "wall"),
            "pages": of("memdump", "pages"), "frozen ms": of("memdump", "frozen_ms"),
            "predicted": of("memdump", "predicted_ms"), "writes/s": of("memdump", "writes"),
            "written/unique": of("memdump", "written_per_unique"),
            "peak MiB": of("memdump", "peak_rss") / MIB, "criu wall s": of("criu", "wall"),
            "criu frozen ms": of("criu", "frozen_ms")})

    # The target while nothing is frozen.

    def gaps(self):
        size, tools = self.main_size, self.tools
        live = ("--no-final", "--max-rounds", "4", "--min-shrink", "0", "--target-downtime", "1us",
                "--threshold-pages", "0")

        def gap(body):
            target.ask("gap")
            body()
            return target.gap()

        seconds = 2 * self.first_round_seconds()
        with stamp(self.scene, size, rate=2000) as target:
            rounds = []
            # What a host takes back again meanwhile stops a processor for tens of milliseconds.
            runs = self.in_turn(
                0,
                alone=lambda: gap(lambda: time.sleep(seconds)),
                busy=lambda: gap(lambda: tools.limit("limit", target.pid, 2)),
                live=lambda: gap(
                    lambda: rounds.append(tools.memdump(target.pid, *live, size=size))))
        self.report.samples("gaps", runs)
        alone, busy, during = (median(runs[name]) for name in ("alone", "busy", "live"))
        section = f"longest gap that a thread of the target saw, {name_of(size)}"
        self.report.row(section, "undisturbed", ms=alone)
        self.report.row(section, "both cores busy with bare LZ4", ms=busy)
        self.report.row(section, "live rounds of memdump", ms=during,
                        rounds=median(run["live_rounds"] for run in rounds))
        detail = f"{during:.2f} ms; undisturbed {alone:.2f} ms, cores busy {busy:.2f} ms"
        self.report.bar(
            "gap in live rounds / undisturbed", during / alone, most=1.25, detail=detail)
        self.report.bar("gap in live rounds / cores as busy", during / busy, most=1.25)
        self.report.unmeasured(
            "criu pre-dump's chain: last freeze, gaps",
            "scripts/bench-softdirty.sh measures them, on a kernel that has soft-dirty tracking")

    def throughput(self):
        size, tools = self.main_size, self.tools
        section = f"the target's own work, {name_of(size)} (pages/s)"
        kept = {}
        seconds = max(0.5, self.first_round_seconds())
        for rate, pattern in ((100000, "hot"), (100000, "uniform"), ("max", "hot")):
            with stamp(self.scene, size, rate, pattern) as target:
                measured = lambda body: target.writes_per_second(body)[1]
                runs = self.in_turn(
                    alone=lambda: measured(lambda: time.sleep(seconds)),
                    busy=lambda: measured(lambda: tools.limit("limit", target.pid, 1)),
                    predump=lambda: measured(lambda: tools.memdump(target.pid, size=size)))
            name = f"{rate} {pattern}"
            self.report.samples(f"throughput {name}", runs)
            alone, busy, predump = (median(runs[key]) for key in ("alone", "busy", "predump"))
            kept[name] = predump / alone
            self.report.row(section, name, **{
                "undisturbed": alone, "cores busy with bare LZ4": busy, "under predump": predump,
                "kept": predump / alone})
        for name in ("100000 hot", "100000 uniform"):
            self.report.bar(f"throughput kept, {name}", kept[name], least=0.85)

    def redis(self):
        size = 50_000_000 if self.quick else 300_000_000
        with Redis(self.scene, size) as target:
            command = lambda requests: target.load_command(requests)
            trial = target.latencies(self.scene.run(command(20000)).text)
            requests = int(trial["per_second"] * (1.5 if self.quick else 4))

            def load():
                return target.latencies(self.scene.run(command(requests)).text)

            runs = self.in_turn(
                alone=load, predump=lambda: self.dumped_under_load(target, command(requests), size))
        self.report.samples("redis", runs)
        of = lambda name, key: median(run[key] for run in runs[name])
        section = f"redis, {size // 1_000_000} MB, SET by 4 clients; dump after dump (latency ms)"
        for name in runs:
            self.report.row(section, {"alone": "undisturbed", "predump": "under predump"}[name], **{
                "requests/s": of(name, "per_second"), "p50": of(name, "p50"),
                "p99": of(name, "p99"), "p99.9": of(name, "p999"), "longest": of(name, "max")})
        dumps = [dump for run in runs["predump"] for dump in run["dumps"]]
        self.report.row(section, "the dumps", **{
            "dumps": len(dumps), "wall s": median(dump["wall"] for dump in dumps),
            "frozen ms": median(dump["frozen_ms"] for dump in dumps),
            "pages": median(dump["pages"] for dump in dumps)})
        self.report.bar(
            "redis throughput kept", of("predump", "per_second") / of("alone", "per_second"),
            least=0.85)
        self.report.bar(
            "redis p99 / undisturbed", of("predump", "p99") / of("alone", "p99"), most=2,
            detail=f"{of('predump', 'p99'):.3f} ms, undisturbed {of('alone', 'p99'):.3f} ms")

    def dumped_under_load(self, target, command, size):
        """One dump after the other for as long as the load lasts."""
        out = self.scene.directory("/dev/shm") + "/load"
        with open(out, "w+b") as file:
            load = self.scene.start(command, self.scene.tools, stdin=file, stdout=file)
            dumps = []
            while load.poll() is None:
                dumps.append(self.tools.memdump(target.pid, "--target-downtime", "5ms", size=size))
            self.scene.tools.remove(load)
            if load.returncode != 0:
                raise Failure(f"redis-benchmark ended with {load.returncode}")
            file.seek(0)
            return target.latencies(file.read().decode()) | {"dumps": dumps}

    # To another machine.

    def migrate(self):
        migration = Migration(self.scene, self.main_size)
        ways = {"eager": migration.by_migrate, "lazy": migration.by_migrate_lazily,
                "hand": migration.by_memdump, "served": migration.by_memdump_lazily,
                "criu": migration.by_criu}
        runs = self.in_turn(**{
            name: lambda way=way: migration.moved(way) for name, way in ways.items()})
        self.report.samples("migrate", runs)
        section = (f"{name_of(self.main_size)}, {RATE:,} pages/s dirtied, moved to another pid "
                   "namespace (ms, medians)")
        labels = {"eager": "memdump migrate", "lazy": "memdump migrate, lazy restore",
                  "hand": "memdump, step by step",
                  "served": "memdump, step by step, lazy restore", "criu": "CRIU alone"}
        medians = {name: {part: median(run[part] for run in runs[name]) for part in runs[name][0]}
                   for name in runs}
        for name, label in labels.items():
            parts = medians[name]
            self.report.row(section, label, **{
                "not running": parts["total"], "freeze, last round": parts["freeze and last round"],
                "criu dump": parts["criu dump"], "transfer": parts["transfer"],
                "restore": parts["restore"]})
        alone = medians["criu"]["total"]
        for name, most in (("eager", 1 / 3), ("lazy", 1 / 6)):
            total = medians[name]["total"]
            self.report.bar(
                f"downtime, {name} restore / CRIU alone", total / alone, most=most,
                detail=f"{total:.0f} ms of {alone:.0f} ms")

    def transfer(self):
        transfer = Transfer(self.scene)
        with stamp(self.scene, self.main_size) as target:
            pid = target.pid
            stored = lambda *options: {
                "gbps": (run := self.tools.memdump(pid, *options, size=self.main_size))["first_gbps"],
                "wall": run["wall"]}
            ways = {"stored here, lz4": stored,
                    "stored here, none": lambda: stored("--compress", "none")}
            for link in LINKS:
                ways[f"{link}, lz4"] = lambda link=link: transfer.sent(pid, link)
                ways[f"{link}, none"] = lambda link=link: transfer.sent(
                    pid, link, "--compress", "none")
            runs = self.in_turn(**ways)
        self.report.samples("transfer", runs)
        section = f"{name_of(self.main_size)} half-compressible, sent to a receiver on this machine"
        for name, samples in runs.items():
            self.report.row(section, name, **{
                "first round GB/s": median(run["gbps"] for run in samples),
                "wall s": median(run["wall"] for run in samples)})

    # Goals that speak of every run.

    def over_all_runs(self):
        dumps = self.tools.dumps
        self.report.samples("all dumps", dumps)
        frozen = [dump for dump in dumps if "error" in dump]
        if frozen:
            self.report.bar(
                "prediction error, median of all freezes", median(dump["error"] for dump in frozen),
                most=0.25, detail=f"{len(frozen)} freezes")
        if GIB in self.first_rounds and 4 * GIB in self.first_rounds:
            self.report.bar(
                "first round, 4 GiB / 1 GiB, wall",
                self.first_rounds[4 * GIB] / self.first_rounds[GIB], most=4.4)
        for size in sorted({dump["size"] for dump in dumps if dump["size"] >= 256 * MIB}):
            these = [dump for dump in dumps if dump["size"] == size]
            most = max(dump["peak_rss"] - dump.get("pages", 0) * 4096 for dump in these)
            plain = max(dump["peak_rss"] for dump in these)
            self.report.bar(
                f"peak RSS - frozen bytes, MiB, {name_of(size)}", most / MIB, most=128,
                detail=f"peak {plain / MIB:.0f} MiB, {len(these)} dumps")
