#!/usr/bin/env python3
"""A client of ploopd in about a hundred lines, with nothing but Python's own library.

    docs/examples/client.py [SOCKET]

creates a disk, takes a snapshot of it, backs it up while it says how far it is, restores the backup as another
disk, and tidies up. The class is meant to be taken as it is, or as a beginning.
"""
import http.client
import json
import socket
import sys
import urllib.parse
import uuid


class Problem(Exception):
    """What the service refuses, or what a job has failed of: `code` never changes its meaning."""

    def __init__(self, problem):
        super().__init__(f"{problem['code']}: {problem.get('detail') or problem.get('title')}")
        self.code = problem["code"]
        self.problem = problem


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path, timeout):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Ploopd:
    def __init__(self, path="/run/ploopd/api.sock", timeout=120):
        self.path = path
        self.timeout = timeout

    def call(self, method, target, body=None, **headers):
        """One request; a reply without content is None. Whoever sends a POST again after a lost reply gives it
        the same `idempotency_key`: the service does it once."""
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(body)
        connection = Connection(self.path, self.timeout)
        try:
            connection.request(method, target, body, headers)
            reply = connection.getresponse()
            text = reply.read()
        finally:
            connection.close()
        answer = json.loads(text) if text else None
        if reply.status >= 400:
            raise Problem(answer)
        return answer

    def items(self, target, limit=100):
        """All of a list, in parts of so many."""
        cursor = ""
        while cursor is not None:
            query = urllib.parse.urlencode({"limit": limit} | ({"cursor": cursor} if cursor else {}))
            part = self.call("GET", f"{target}?{query}")
            yield from part["items"]
            cursor = part["next"]

    def run(self, kind, device=None, progress=lambda job: None, **params):
        """A job from its beginning to its end; `progress` is called whenever something has changed."""
        request = {"type": kind, "params": params} | ({"device": device} if device else {})
        job = self.call("POST", "/v1/jobs", request, idempotency_key=str(uuid.uuid4()))
        while job["finished_at"] is None:
            progress(job)
            # Answered when the job has changed, or after half a minute.
            job = self.call("GET", f"/v1/jobs/{job['id']}?after_revision={job['revision']}&wait=30")
        if job["state"] != "succeeded":
            raise Problem(job["error"] or {"code": job["state"], "detail": f"job {job['id']}"})
        return job


def show(job):
    progress = job["progress"]
    print(f"  {job['type']} {job['phase'] or job['state']}: "
          f"{progress['done_clusters']} of {progress['total_clusters']} clusters")


def main():
    ploopd = Ploopd(*sys.argv[1:])
    ploopd.call("POST", "/v1/devices", {
        "id": "py1", "create": {"directory": "py1", "size": 64 << 20}, "export": {"name": "py1"}})
    print("a disk:", ploopd.call("GET", "/v1/exports/py1")["uris"][0])
    snapshot = ploopd.call("POST", "/v1/devices/py1/snapshots", {"name": "by Python"})
    print("a snapshot:", snapshot["uuid"])
    ploopd.call("POST", "/v1/targets", {"name": "py", "type": "directory", "path": "py-backups"})
    backup = ploopd.run("backup", "py1", show, target="py")["result"]["backup"]
    print("a backup:", backup, "of", [point["id"] for point in ploopd.items("/v1/targets/py/backups")])
    ploopd.run("restore", None, show, target="py", backup=backup, to={"id": "py2", "directory": "py2"})
    try:
        ploopd.call("GET", "/v1/devices/py3")
    except Problem as problem:
        print("what is not there:", problem)
    print("devices:", [device["id"] for device in ploopd.items("/v1/devices", limit=1)])
    for device in ("py1", "py2"):
        ploopd.call("DELETE", f"/v1/devices/{device}")
    print("devices left:", [device["id"] for device in ploopd.items("/v1/devices")])


if __name__ == "__main__":
    main()
