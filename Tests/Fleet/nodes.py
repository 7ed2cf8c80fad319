"""Several ploopd on this host that share a folder of images, as hosts of a fleet would."""
import json
import os
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..', 'Soak'))
from daemon import Daemon, Gone, Refused  # noqa: E402
from etcd import eventually, free_ports  # noqa: E402


class Node(Daemon):
    def __init__(self, program, folder, images, name, etcd, seconds, options, prefix=()):
        os.makedirs(f'{folder}/{name}/servers')
        super().__init__(program, f'{folder}/{name}', images)
        self.name = name
        self.port, = free_ports(1)
        listen = self.arguments.index('--http-listen') + 1
        self.arguments[listen] = f'127.0.0.1:{self.port}'
        self.arguments = [*prefix, *self.arguments] + [
            '--http-auth', 'none', '--etcd', etcd, '--node', name, '--lease-seconds', str(seconds), *options]
        self.is_stopped = False

    @property
    def endpoint(self):
        return f'http://127.0.0.1:{self.port}'

    @property
    def is_running(self):
        return self.process is not None and self.process.poll() is None and not self.is_stopped

    def stop(self):
        self.is_stopped = True
        self.process.send_signal(signal.SIGSTOP)
        # The signal is only under way: a thread may still answer until it has met it.
        eventually(f'{self.name} is stopped', 10, self.is_still)

    def is_still(self):
        states = set()
        for task in os.listdir(f'/proc/{self.process.pid}/task'):
            with open(f'/proc/{self.process.pid}/task/{task}/stat') as stat:
                states.add(stat.read().rsplit(')', 1)[1].split()[0])
        return states == {'T'}

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)
        self.is_stopped = False

    def finish(self):
        """However it is."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()

    def devices(self):
        """Those that it serves, with their states."""
        found, cursor = {}, ''
        while True:
            page = self.call('GET', f'/v1/devices?limit=1000{cursor}')
            found.update({item['id']: item for item in page['items']})
            if not page['next']:
                return found
            cursor = f'&cursor={page["next"]}'

    def log(self):
        with open(f'{self.folder}/log', errors='replace') as log:
            return log.read()


class Hosts:
    NAMES = [f'host-{letter}' for letter in 'abcdefgh']

    def __init__(self, program, folder, etcd, count=3, seconds=5, options=(), inside=lambda name: ()):
        self.images = f'{folder}/images'
        os.makedirs(self.images, exist_ok=True)
        self.seconds = seconds
        self.nodes = [
            Node(program, folder, self.images, name, etcd.urls, seconds, options, inside(name))
            for name in self.NAMES[:count]]

    def start(self):
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            eventually(f'{node.name} knows all', 60, lambda node=node: self.knows_all(node))

    def knows_all(self, node):
        items = node.call('GET', '/v1/nodes')['items']
        return len(items) == len(self.nodes) and all(item['serving'] for item in items)

    def finish(self):
        for node in self.nodes:
            node.finish()

    def running(self):
        return [node for node in self.nodes if node.is_running]

    def named(self, name):
        return next(node for node in self.nodes if node.name == name)

    def server(self, device):
        """The node that serves a device now."""
        for node in self.running():
            try:
                if node.ask('GET', f'/v1/devices/{device}', timeout=5)[1].get('state') == 'online':
                    return node
            except Gone:
                continue
        return None

    def make(self, device, node, size=16 << 20, **more):
        return node.call('POST', '/v1/devices', {
            'id': device, 'create': {'directory': f'main:{device}', 'size': size, 'cluster_size': 1 << 16},
            'export': {'name': device}, **more})


class Door:
    """Where a guest finds his disk, whoever has it: what `daemon.Daemon` is to a guest of one service."""

    def __init__(self, hosts, device):
        self.hosts, self.device, self.ready = hosts, device, self

    @property
    def nbd_path(self):
        node = self.hosts.server(self.device)
        return node.nbd_path if node else '/nowhere'

    def wait(self, seconds):
        threading.Event().wait(min(seconds, 0.1))
