# Counts for ever, keeps a table that it checks, and appends each number to the file argv[1].
import hashlib
import os
import sys

if os.fork():
    os._exit(0)
os.setsid()
print("ready pid=%d" % os.getpid(), flush=True)
null = os.open("/dev/null", os.O_RDWR)
for number in (0, 1, 2):
    os.dup2(null, number)
table = {}
log = open(sys.argv[1], "a", buffering=1)
for count in range(1 << 62):
    key = count % 20000
    previous = table.get(key)
    if previous is not None and previous != hashlib.sha1(b"%d" % (count - 20000)).digest():
        log.write("damaged at %d\n" % count)
        break
    table[key] = hashlib.sha1(b"%d" % count).digest()
    if count % 500 == 0:
        log.write("%d\n" % count)
