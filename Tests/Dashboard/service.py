"""The service as its users have it, in a folder of the test's own, with a token for a browser."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = os.environ.get("PLOOPD", f"{TOP}/.build/debug/ploopd")
LONGEST_SECONDS = 120


def await_that(condition, what):
    """Looks until it is so; between two looks a moment passes, never instead of one."""
    deadline = time.monotonic() + LONGEST_SECONDS
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"in {LONGEST_SECONDS} s it was not so: {what}"
        time.sleep(0.05)


class Service:
    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix="ploopd-dashboard-")
        os.makedirs(f"{self.folder}/images")
        os.makedirs(f"{self.folder}/state")
        self.process = None
        # The address outlives a crash of the service, as that of a real one does.
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.start()
        self.token = self.run([PROGRAM, "token", "add", "test", "--scope", "admin", "--state-dir",
                               f"{self.folder}/state"]).strip().split()[-1]

    def start(self):
        self.log = open(f"{self.folder}/log", "a")
        self.process = subprocess.Popen(
            [PROGRAM, "serve", "--state-dir", f"{self.folder}/state", "--root", f"main={self.folder}/images",
             "--http-socket", f"{self.folder}/api.sock", "--nbd-socket", f"{self.folder}/nbd.sock",
             "--http-listen", f"127.0.0.1:{self.port}", "--nbd-listen", "none"],
            stdout=self.log, stderr=self.log)
        await_that(self.is_ready, "the service is ready")

    def is_ready(self):
        assert self.process.poll() is None, open(f"{self.folder}/log").read()[-2000:]
        return self.curl("GET", "/readyz", check=False).returncode == 0

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=LONGEST_SECONDS)
        self.log.close()
        shutil.rmtree(self.folder)

    def curl(self, method, path, body=None, headers=(), check=True):
        words = ["curl", "-sS", "-f", "--max-time", "90", "--unix-socket", f"{self.folder}/api.sock",
                 "-X", method, f"http://localhost{path}"]
        for header in headers:
            words += ["-H", header]
        if body is not None:
            words += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        return subprocess.run(words, capture_output=True, text=True, check=check)

    def get(self, path):
        return json.loads(self.curl("GET", path).stdout)

    def post(self, path, body, *headers):
        return json.loads(self.curl("POST", path, body, headers).stdout)

    def patch(self, path, body):
        return json.loads(self.curl("PATCH", path, body).stdout)

    def create(self, name, size_bytes):
        return self.post("/v1/devices", {
            "id": name, "create": {"directory": name, "size": size_bytes}, "export": {"name": name}})

    def qemu_io(self, export, *commands):
        words = ["qemu-io", "-f", "raw"]
        for command in commands:
            words += ["-c", command]
        uri = f"nbd+unix:///{export}?socket={self.folder}/nbd.sock"
        said = self.run(words + [uri])
        assert "failed" not in said, said

    def run(self, words):
        return subprocess.run(words, capture_output=True, text=True, check=True).stdout
