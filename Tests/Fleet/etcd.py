"""A cluster of etcd on this host: plain processes on free ports, that are killed, stopped and started again."""
import base64
import contextlib
import json
import os
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(('127.0.0.1', 0))
        return [each.getsockname()[1] for each in sockets]


def eventually(what, seconds, condition):
    """What the condition gives once that is something; a failure that says what was waited for otherwise."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f'{what}: not within {seconds} s'
        threading.Event().wait(0.05)


class Member:
    def __init__(self, name, folder, client, peer, host):
        self.name, self.folder = name, f'{folder}/{name}'
        self.url, self.peer = f'http://{host}:{client}', f'http://127.0.0.1:{peer}'
        self.process = None

    def start(self, cluster):
        os.makedirs(self.folder, exist_ok=True)
        with open(f'{self.folder}/log', 'ab') as log:
            self.process = subprocess.Popen([
                'etcd', '--name', self.name, '--data-dir', f'{self.folder}/data', '--listen-client-urls', self.url,
                '--advertise-client-urls', self.url, '--listen-peer-urls', self.peer,
                '--initial-advertise-peer-urls', self.peer, '--initial-cluster', cluster,
                '--heartbeat-interval', '100', '--election-timeout', '1000',
            ], stdout=log, stderr=log)

    def kill(self):
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.kill()
            self.process.wait()
            self.process = None

    def ask(self, path, body, timeout=5):
        request = urllib.request.Request(self.url + path, json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=timeout) as reply:
            return json.loads(reply.read())

    def is_leader(self):
        try:
            reply = self.ask('/v3/maintenance/status', {})
        except (OSError, urllib.error.URLError):
            return False
        return reply.get('leader') == reply['header']['member_id']


class Etcd:
    def __init__(self, folder, count=3, host='127.0.0.1'):
        ports = free_ports(2 * count)
        self.members = [
            Member(f'etcd{number}', folder, ports[2 * number], ports[2 * number + 1], host) for number in range(count)]
        self.cluster = ','.join(f'{member.name}={member.peer}' for member in self.members)

    @property
    def urls(self):
        return ','.join(member.url for member in self.members)

    def start(self):
        for member in self.members:
            if member.process is None:
                member.start(self.cluster)
        eventually('etcd has a leader', 60, self.leader)

    def kill(self):
        for member in self.members:
            member.kill()

    def leader(self):
        return next((member for member in self.members if member.process and member.is_leader()), None)

    def ask(self, path, body):
        for member in self.members:
            try:
                return member.ask(path, body)
            except (OSError, urllib.error.URLError):
                continue
        raise AssertionError('no etcd answers')

    def values(self, prefix):
        """Of all keys that begin so: what is behind the prefix, the value, and the revision at which it was written."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        reply = self.ask('/v3/kv/range', {'key': encoded(prefix), 'range_end': encoded(end)})
        return {
            decoded(pair['key'])[len(prefix):]: (json.loads(decoded(pair['value'])), int(pair['mod_revision']))
            for pair in reply.get('kvs', [])}


class OwnerHistory(threading.Thread):
    """Who has had each device, in order, as etcd itself tells it from a revision on."""

    def __init__(self, etcd):
        super().__init__(daemon=True)
        self.etcd, self.prefix = etcd, '/ploopd/v1/owners/'
        self.owners, self.is_over, self.revision = {}, threading.Event(), 1

    def run(self):
        while not self.is_over.is_set():
            for member in self.etcd.members:
                with contextlib.suppress(OSError, urllib.error.URLError, ValueError):
                    self.follow(member)

    def follow(self, member):
        body = {'create_request': {
            'key': encoded(self.prefix), 'range_end': encoded(self.prefix[:-1] + '0'),
            'start_revision': str(self.revision)}}
        request = urllib.request.Request(f'{member.url}/v3/watch', json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=2) as reply:
            for line in reply:
                for event in json.loads(line)['result'].get('events', []):
                    self.take(event)
                if self.is_over.is_set():
                    return

    def take(self, event):
        pair = event['kv']
        revision = int(pair['mod_revision'])
        if revision < self.revision:
            return
        device = decoded(pair['key'])[len(self.prefix):]
        if event.get('type') != 'DELETE':
            self.owners.setdefault(device, []).append((revision, json.loads(decoded(pair['value']))['node']))
        self.revision = revision + 1


def encoded(text):
    return base64.b64encode(text.encode()).decode()


def decoded(text):
    return base64.b64decode(text).decode()
