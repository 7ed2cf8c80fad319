"""What a fleet of many nodes asks of etcd: what a device costs a real node, then renewals of leases, and the end of some nodes,
with a real etcd of three members and that node, which watches; the other nodes are requests.

    PLOOPD=.build/release/ploopd simulate.py [NODES [DEVICES-OF-EACH]]

Ends with two tables in Markdown, for docs/fleet.md.
"""
import base64
import concurrent.futures
import http.client
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time

import nbd

from etcd import Etcd, encoded, eventually
from nodes import Node

PROGRAM = os.path.abspath(os.environ.get('PLOOPD', '.build/release/ploopd'))
NODES = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
DEVICES = int(sys.argv[2]) if len(sys.argv) > 2 else 20
SECONDS, LOST, WORKERS, WINDOW = 15, 10, 12, 30
PREFIX = '/ploopd/v1/'
local = threading.local()


class Client:
    """Connections that stay, as many as there are workers."""

    def __init__(self, etcd):
        self.ports = [int(member.url.rsplit(':', 1)[1]) for member in etcd.members]

    def ask(self, path, body):
        connection = getattr(local, 'connection', None)
        if connection is None:
            port = self.ports[threading.get_ident() % len(self.ports)]
            connection = local.connection = http.client.HTTPConnection('127.0.0.1', port, timeout=30)
        start = time.monotonic()
        connection.request('POST', path, json.dumps(body), {'Content-Type': 'application/json'})
        reply = json.loads(connection.getresponse().read())
        return reply, time.monotonic() - start


def record(device):
    """As large as one that a node writes down."""
    return {'epoch': 1, 'node': 'x', 'state': 'serving', 'record': {
        'autostart': True, 'clusterBytes': 1 << 20, 'createdAt': 1.0, 'deltas': [
            {'guid': '{5fbaabe3-6958-40ff-92a7-860e329aab41}', 'isRaw': False, 'path': f'main:{device}/root.hds'}],
        'descriptor': f'main:{device}/DiskDescriptor.xml', 'exports': [
            {'name': device, 'readonly': False, 'revision': 1, 'sharedWriters': False, 'summary': ''}],
        'id': device, 'isAttached': True, 'labels': {'tenant': 'somebody'}, 'readonly': False, 'revision': 1,
        'sizeBytes': 1 << 34, 'suspended': False, 'updatedAt': 1.0, 'uuid': '9e499a9e-2ca6-487a-963f-3c407a406636',
        'version': 2}}


def put(key, value, lease=0):
    step = {'key': encoded(key), 'value': base64.b64encode(json.dumps(value).encode()).decode()}
    return {'requestPut': {**step, 'lease': str(lease)} if lease else step}


def cpu_of(pid):
    """Seconds of processor that a process has had."""
    with open(f'/proc/{pid}/stat') as stat:
        fields = stat.read().rsplit(')', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def cpu(etcd):
    return sum(cpu_of(member.process.pid) for member in etcd.members)


def memory(pid):
    with open(f'/proc/{pid}/status') as status:
        return next(int(line.split()[1]) for line in status if line.startswith('RssAnon'))


class Simulation:
    def __init__(self, etcd, pool):
        self.etcd, self.pool, self.client = etcd, pool, Client(etcd)
        # Nobody's lease waits for what else there is to do.
        self.renewers = concurrent.futures.ThreadPoolExecutor(WORKERS)
        self.leases, self.silent, self.is_over = {}, set(), threading.Event()
        self.latencies, self.lost = [], []

    def each(self, work, items):
        return list(self.pool.map(work, items))

    def build(self):
        def node(number):
            reply, _ = self.client.ask('/v3/lease/grant', {'TTL': str(SECONDS)})
            self.leases[number] = int(reply['ID'])
            self.client.ask('/v3/kv/txn', {'success': [put(f'{PREFIX}nodes/n{number}', {
                'name': f'n{number}', 'endpoint': 'http://192.0.2.1:7447', 'version': '0', 'labels': {}, 'capacity': 0,
                'since': 1.0}, self.leases[number])]})
        self.each(node, range(NODES))
        self.renewals = threading.Thread(target=self.renew, daemon=True)
        self.renewals.start()

        def devices(number):
            for index in range(DEVICES):
                self.own(f'd{number}-{index}', number)
        self.each(devices, range(NODES))

    def own(self, device, number):
        """The two writes of an owner who takes what nobody has; a third one says that it is served."""
        self.client.ask('/v3/kv/txn', {
            'compare': [{'key': encoded(f'{PREFIX}owners/{device}'), 'target': 'CREATE', 'result': 'EQUAL',
                         'create_revision': '0'}],
            'success': [put(f'{PREFIX}owners/{device}', {'node': f'n{number}'}, self.leases[number])]})
        for _ in range(2):
            self.client.ask('/v3/kv/txn', {'success': [put(f'{PREFIX}devices/{device}', record(device))]})

    def renew(self):
        """Each lease each third of its time, one after the other."""
        numbers, start, turn = list(self.leases), time.monotonic(), 0
        while not self.is_over.is_set():
            number = numbers[turn % len(numbers)]
            due = start + turn * SECONDS / 3 / len(numbers)
            self.is_over.wait(max(0, due - time.monotonic()))
            if number not in self.silent:
                self.renewers.submit(self.renew_one, number)
            turn += 1

    def renew_one(self, number):
        reply, seconds = self.client.ask('/v3/lease/keepalive', {'ID': str(self.leases[number])})
        if 'TTL' not in reply.get('result', {}):
            self.lost.append(number)
        self.latencies.append(seconds)

    def lose(self):
        """Some nodes say nothing any more; the others take what they had, as soon as etcd says so."""
        victims = set(range(0, NODES, NODES // LOST))
        wanted = {f'd{number}-{index}' for number in victims for index in range(DEVICES)}
        events, lost, revision = [], threading.Event(), self.revision()

        def watch():
            connection = http.client.HTTPConnection('127.0.0.1', self.client.ports[0], timeout=120)
            connection.request('POST', '/v3/watch', json.dumps({'create_request': {
                'key': encoded(f'{PREFIX}owners/'), 'range_end': encoded(f'{PREFIX}owners0'),
                'start_revision': str(revision)}}))
            reply = connection.getresponse()
            while wanted - set(events):
                for event in json.loads(reply.readline())['result'].get('events', []):
                    if event.get('type') == 'DELETE':
                        events.append(base64.b64decode(event['kv']['key']).decode()[len(f'{PREFIX}owners/'):])
                        lost.first = getattr(lost, 'first', time.monotonic())
            lost.set()
        threading.Thread(target=watch, daemon=True).start()
        silent_since = time.monotonic()
        self.silent |= victims
        assert lost.wait(4 * SECONDS), f'{len(wanted - set(events))} of {len(wanted)} devices are still owned'
        heirs = [number for number in self.leases if number not in victims]
        start, before = time.monotonic(), cpu(self.etcd)
        self.each(lambda item: self.own(item[1], heirs[item[0] % len(heirs)]), list(enumerate(sorted(wanted))))
        end = time.monotonic()
        return {
            'devices': len(wanted), 'first': lost.first - silent_since, 'all': start - silent_since,
            'taken': end - start, 'cpu': (cpu(self.etcd) - before) / len(wanted)}

    def revision(self):
        return int(self.etcd.ask('/v3/kv/range', {'key': encoded('x')})['header']['revision']) + 1


class Costs:
    """Of one real node: what its disks and clients take of its memory, and which of their changes etcd writes down."""

    DEVICES, CLIENTS = 200, 200

    def __init__(self, etcd, node):
        self.etcd, self.node, self.rows = etcd, node, []

    def revision(self):
        return int(self.etcd.ask('/v3/kv/range', {'key': encoded('x')})['header']['revision'])

    def writes(self, name, work, count=1):
        before = self.revision()
        work()
        self.rows.append((f'writes of etcd: {name}', f'{(self.revision() - before) / count:.3g}'))

    def memory(self):
        """What it keeps: buffers of clients that have left are given back some seconds later."""
        def look():
            threading.Event().wait(0.5)
            return memory(self.node.process.pid)
        return min(look() for _ in range(20))

    def grown(self, name, work, count):
        before = self.memory()
        kept = work()
        grown = self.memory() - before
        self.rows.append((f'KiB of the node: {name}', f'{grown / count:.0f}'))
        return kept

    def make(self, device):
        self.node.call('POST', '/v1/devices', {
            'id': device, 'create': {'directory': f'main:{device}', 'size': 1 << 30}, 'export': {'name': device}})

    def client(self, device):
        client = nbd.NBD()
        client.set_export_name(device)
        client.connect_unix(self.node.nbd_path)
        return client

    def compact(self, device):
        job = self.node.call('POST', '/v1/jobs', {'type': 'compact', 'device': device})['id']
        eventually('the job is over', 60, lambda: self.node.call('GET', f'/v1/jobs/{job}')['state'] == 'succeeded')

    def measure(self):
        call, names = self.node.call, [f'own-{index}' for index in range(self.DEVICES)]
        self.make('own')
        self.writes('a disk that is made', lambda: self.grown(
            'a disk that is idle', lambda: [self.make(name) for name in names], len(names)), len(names))
        clients = self.grown('a client that is idle', lambda: [
            self.client(names[index % len(names)]) for index in range(self.CLIENTS)], self.CLIENTS)
        for client in clients:
            client.shutdown()
        self.writes('an export', lambda: call('POST', '/v1/exports', {'name': 'other', 'device': 'own', 'readonly': True}))
        self.writes('a snapshot', lambda: call('POST', '/v1/devices/own/snapshots', {}))
        self.writes('a job, from its beginning to its end', lambda: self.compact('own'))
        self.writes('a disk that is detached', lambda: [
            call('DELETE', f'/v1/devices/{name}?mode=hard') for name in names], len(names))
        call('DELETE', '/v1/devices/own?mode=hard')
        return self.rows


def show(rows):
    print('| what | |\n|---|---|')
    for name, value in rows:
        print(f'| {name} | {value} |')
    print(flush=True)


def main():
    # In memory: what is asked for is processors and time, whatever disk etcd has.
    folder = tempfile.mkdtemp(prefix='ploopd-fleet-', dir='/dev/shm')
    os.mkdir(f'{folder}/images')
    etcd = Etcd(folder)
    node = Node(PROGRAM, folder, f'{folder}/images', 'watcher', etcd.urls, SECONDS, ['--node-capacity', '0'])
    pool = concurrent.futures.ThreadPoolExecutor(WORKERS)
    try:
        etcd.start()
        node.start()
        eventually('the node is in the fleet', 30, lambda: node.call('GET', '/v1/nodes')['items'][0]['serving'])
        show(Costs(etcd, node).measure())
        before = memory(node.process.pid)
        world = Simulation(etcd, pool)
        built, watching, writing = time.monotonic(), cpu_of(node.process.pid), cpu(etcd)
        world.build()
        writing = (cpu(etcd) - writing) / (NODES * DEVICES * 3)
        built = time.monotonic() - built
        eventually('the node knows all of them', 120, lambda: sum(
            item['devices'] for item in node.call('GET', '/v1/nodes')['items']) == NODES * DEVICES)
        watching = (cpu_of(node.process.pid) - watching) / (NODES * DEVICES * 3)
        assert not world.lost, f'nodes have lost their leases, which nobody has wanted: {world.lost[:5]}'
        known = memory(node.process.pid) - before
        world.latencies.clear()
        start, busy = time.monotonic(), cpu(etcd)
        world.is_over.wait(WINDOW)
        seconds, busy, latencies = time.monotonic() - start, cpu(etcd) - busy, sorted(world.latencies)
        lost = world.lose()
        world.is_over.set()
        status = etcd.ask('/v3/maintenance/status', {})
        size = int(status['dbSize'])
        rows = [
            ('nodes, devices', f'{NODES:,}, {NODES * DEVICES:,}'),
            ('renewals in a second', f'{len(latencies) / seconds:.0f}'),
            ('a renewal, p50 and p99, ms', f'{statistics.median(latencies) * 1e3:.1f} and {latencies[len(latencies) * 99 // 100] * 1e3:.1f}'),
            ('processor of all members for a renewal, ms', f'{busy / len(latencies) * 1e3:.2f}'),
            ('devices made in a second (three writes each)', f'{NODES * DEVICES / built:.0f}'),
            ('processor of all members for a write, ms', f'{writing * 1e3:.2f}'),
            ('processor of a node that watches for a write, ms', f'{watching * 1e3:.2f}'),
            (f'{LOST} nodes fall silent: their first device is free after, s', f'{lost["first"]:.1f}'),
            ('the last one, s', f'{lost["all"]:.1f}'),
            (f'all {lost["devices"]} have owners again, s behind that', f'{lost["taken"]:.1f}'),
            ('processor of all members for a device that is taken, ms', f'{lost["cpu"] * 1e3:.1f}'),
            ('bytes of etcd for a device, with its history', f'{size // (NODES * DEVICES):,}'),
            ('bytes of a node that watches, for a device', f'{max(0, known) * 1024 // (NODES * DEVICES):,}'),
        ]
        show(rows)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        node.finish()
        etcd.kill()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == '__main__':
    main()
    os._exit(0)
