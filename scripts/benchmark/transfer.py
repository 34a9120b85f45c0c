"""Rounds that go over a link to a receiver on the same machine, which stores them on tmpfs: both sides
share its processors."""
import json
import os
import shutil
import subprocess

from machine import BUILD

MEMDUMP = f"{BUILD}/memdump"
LINKS = ("unix", "tcp", "tls")


class Transfer:
    def __init__(self, scene):
        self.scene = scene
        self.home = scene.directory("/dev/shm")

    def certificates(self):
        """The options of both sides, which are one name here."""
        key, pem = os.path.join(self.home, "key"), os.path.join(self.home, "pem")
        if not os.path.exists(pem):
            self.scene.run(
                ["openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=bench", "-addext",
                 "subjectAltName=IP:127.0.0.1", "-newkey", "ec", "-pkeyopt",
                 "ec_paramgen_curve:prime256v1", "-keyout", key, "-out", pem])
        return ["--tls-certificate", pem, "--tls-key", key, "--tls-ca", pem]

    def sent(self, pid, link, *options):
        """The first round's rate, with the waiting for the receiver's word that it has all."""
        images = os.path.join(self.home, "images")
        place = f"unix:{self.home}/socket" if link == "unix" else f"{link}:127.0.0.1:0"
        secured = self.certificates() if link == "tls" else []
        receiver = self.scene.start(
            [MEMDUMP, "receive", "--json", "--no-sync", "--images-dir", images, "--from", place,
             *secured],
            self.scene.tools, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        place = json.loads(receiver.stdout.readline())["at"]
        run = self.scene.run(
            [MEMDUMP, "predump", "--json", "--pid", str(pid), "--to", place, *secured, *options],
            accepted=(0, 3))
        receiver.communicate()
        self.scene.tools.remove(receiver)
        shutil.rmtree(images)
        first = next(
            event for event in map(json.loads, run.text.splitlines()) if event["event"] == "round")
        return {"gbps": first["bytes_in"] / first["wall_ns"], "wall": run.wall}
