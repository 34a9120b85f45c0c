import Foundation
import Images
import Kernel
import TestSupport
import Testing
import Tracee

@testable import Predump

/// Services of several processes under load, each compared with its frozen self.
@Suite(.serialized) struct TreeServiceTests {
  /// Dumps the tree of `pid` while it works, leaves it stopped, and compares.
  private func dump(
    _ pid: Int32, _ directory: TemporaryDirectory, _ images: String = "images", rounds: Int = 3
  ) throws -> MemoryComparison {
    var options = PredumpOptions(pid: pid, imagesDirectory: directory.file(images))
    options.includesDescendants = true
    options.policy.targetDowntimeNanoseconds = 1
    options.policy.minShrinkPercent = 0
    options.policy.maxRounds = rounds
    options.freezeTimeoutNanoseconds = 20_000_000_000
    options.leave = .stopped
    options.sync = false
    _ = try Predump.run(options) { _ in }
    return try expectEqualTree(directory.file(images), pid)
  }

  /// Lets a stopped tree run on, and ends its first process with `signal`.
  private func end(_ pid: Int32, with signal: Int32) {
    let tree = (try? ProcessTree.descendants(of: pid)) ?? []
    for entry in tree { kill(entry.pid, SIGCONT) }
    kill(pid, SIGCONT)
    kill(pid, signal)
  }

  /// Runs a shell script that prints `ready PID` and goes on.
  private func start(_ script: String, _ arguments: [String]) throws -> (ChildProgram, Int32) {
    let program = try ChildProgram(
      "/bin/sh", ["-eu", "-c", script, "sh"] + arguments, lifetime: 120)
    let line = try #require(program.line(beginning: "ready "), "the service starts")
    return (program, try #require(Int32(line.dropFirst(6))))
  }

  @Test("PostgreSQL under load, with its backends and shared buffers") func postgres() throws {
    let directory = try TemporaryDirectory()
    // initdb does not run as root; the data belongs to the package's user.
    let script = """
      base=$1; bin=$(ls -d /usr/lib/postgresql/*/bin | tail -1)
      chmod 755 "$base"; mkdir "$base/pg"; chown postgres "$base/pg"; cd "$base/pg"
      as() { runuser -u postgres -- "$@"; }
      as "$bin/initdb" -D data -A trust --no-sync >/dev/null
      as "$bin/postgres" -D data -c shared_buffers=64MB -c listen_addresses= -c fsync=off \\
        -c unix_socket_directories="$base/pg" >log 2>&1 &
      until as "$bin/pg_isready" -q -h "$base/pg"; do sleep 0.1; done
      as "$bin/pgbench" -h "$base/pg" -i -s 3 -q postgres >/dev/null 2>&1
      as "$bin/pgbench" -h "$base/pg" -c 4 -T 100 postgres >/dev/null 2>&1 &
      echo "ready $(head -1 data/postmaster.pid)"
      exec cat >/dev/null
      """
    let (program, pid) = try start(script, [directory.file(".")])
    defer {
      end(pid, with: SIGQUIT)
      // Nobody reaps it: `cat` is its parent.
      let hasEnded = eventually {
        ((try? TargetProcess(pid: pid).liveThread()) ?? nil) == nil
      }
      #expect(hasEnded, "it ends, and takes its segments with it")
      program.end()
    }
    let live = try dump(pid, directory)
    // The postmaster, its helpers and four backends.
    #expect(live.processesCompared >= 9)
    let contents = try ChainContents(directory.file("images"))
    let newest = contents.rounds.last?.record
    let top = try #require(newest)
    let buffers = top.members.compactMap { member in
      member.vmas.first { $0.kind == .sharedAnonymous && $0.range.byteCount >= 64 << 20 }
    }
    #expect(buffers.count == top.members.count && Set(buffers.map(\.sharedObjectID)).count == 1)
    #expect(buffers.count { $0.pagesStored > 0 } == 1, "stored once")
  }

  @Test("redis that saves in the background again and again") func redis() throws {
    let directory = try TemporaryDirectory()
    let script = """
      cd "$1"; redis-server --port 0 --unixsocket s --enable-debug-command yes --save '' --dir . --daemonize no >log 2>&1 &
      pid=$!
      until [ "$(redis-cli -s s ping 2>/dev/null)" = PONG ]; do sleep 0.05; done
      redis-cli -s s debug populate 200000 key 64 >/dev/null
      # A command may fail while redis stands still.
      (while kill -0 $pid; do redis-cli -s s bgsave || :; sleep 0.02; done >/dev/null 2>&1) &
      (while kill -0 $pid; do redis-cli -s s debug populate 200000 k$$ 64 || sleep 0.02; done \\
        >/dev/null 2>&1) &
      echo "ready $pid"
      exec cat >/dev/null
      """
    let (program, pid) = try start(script, [directory.file(".")])
    defer {
      end(pid, with: SIGKILL)
      program.end()
    }
    // A save is short: dump until one is met.
    var members = 0
    for attempt in 0..<50 where members < 2 {
      let images = "images-\(attempt)"
      #expect(try eventually { try !ProcessTree.descendants(of: pid).isEmpty }, "redis saves")
      _ = try dump(pid, directory, images, rounds: 4)
      members = try ChainContents(directory.file(images)).session?.members.count ?? 0
      for entry in try ProcessTree.descendants(of: pid) { kill(entry.pid, SIGCONT) }
      kill(pid, SIGCONT)
    }
    #expect(members > 1, "a background save was met")
  }

  @Test("Python's multiprocessing with shared memory") func python() throws {
    let directory = try TemporaryDirectory()
    let script = """
      import multiprocessing as m, os, random, sys, time
      from multiprocessing import shared_memory
      def work(name, array, seed):
          block = shared_memory.SharedMemory(name=name)
          own = bytearray(1 << 20)
          r = random.Random(seed)
          while True:
              i = r.randrange(1 << 20)
              block.buf[i] = own[i] = array[i % len(array)] = r.randrange(256)
      block = shared_memory.SharedMemory(f'memdump-{os.getpid()}', create=True, size=1 << 20)
      array = m.Array('B', 4096, lock=False)
      ps = [m.Process(target=work, args=(block.name, array, n), daemon=True) for n in range(3)]
      [p.start() for p in ps]
      print('ready', os.getpid(), flush=True)
      sys.stdin.read()
      """
    let program = try ChildProgram("/usr/bin/python3", ["-c", script], lifetime: 120)
    let line = try #require(program.line(beginning: "ready "))
    let pid = try #require(Int32(line.dropFirst(6)))
    defer {
      let tree = (try? ProcessTree.descendants(of: pid)) ?? []
      end(pid, with: SIGKILL)
      for entry in tree { kill(entry.pid, SIGKILL) }
      program.end()
      shm_unlink("/memdump-\(pid)")
    }
    let live = try dump(pid, directory)
    #expect(live.processesCompared >= 4)
  }
}
