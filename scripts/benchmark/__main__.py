"""Run by scripts/bench.sh."""
import argparse
import os
import sys
import time

from machine import Failure, Scene, describe, say
from report import Report
from sections import Sections
from tools import Tools


def main():
    parser = argparse.ArgumentParser(prog="bench.sh")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--out", default=".build/bench")
    options = parser.parse_args()
    os.makedirs(options.out, exist_ok=True)
    began = time.monotonic()
    report = Report(describe(), options.quick)
    scene = Scene()
    try:
        Sections(scene, Tools(scene), report, options.quick).run(
            [name for name in options.only.split(",") if name])
    except Failure as failure:
        say(str(failure))
        sys.exit(1)
    finally:
        scene.close()
    report.data["seconds"] = time.monotonic() - began
    for name, text in (("table.txt", report.table()), ("results.json", report.json())):
        with open(os.path.join(options.out, name), "w") as file:
            file.write(text)
    print(report.table(), end="")
    say(f"{report.data['seconds']:.0f} s; {options.out}/results.json has every sample")


main()
