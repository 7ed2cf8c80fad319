"""Several services that have disks together, by three etcd on this host: disks move, owners are killed, stopped and woken,
etcd loses its leader or ends. Guests that know what they wrote are at the disks all the time.

    PLOOPD=.build/release/ploopd FLEET_DEVICES=40 fleet.py [CASE ...]

Ends with 0, or with 1 and what was wrong; the folder is left then.
"""
import contextlib
import glob
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import nbd

from etcd import Etcd, OwnerHistory, eventually
from network import BRIDGE, Network
from nodes import Door, Gone, Hosts
from guest import Guest, pattern

PROGRAM = os.path.abspath(os.environ.get('PLOOPD', '.build/release/ploopd'))
DEVICES = int(os.environ.get('FLEET_DEVICES', '40'))
SEED = int(os.environ.get('PLOOPD_SEED', random.randrange(1 << 31)))
# Of the issue of a lease that nobody renews, and of all that comes behind it.
TAKEOVER_SECONDS = 10
BLOCKS = 1024
began = time.monotonic()


def tell(text):
    print(f'{time.monotonic() - began:7.1f} s  {text}', flush=True)


class Guests:
    """One at each disk; a fault of any is that of the test."""

    def __init__(self, hosts, devices):
        self.fault = None
        self.guests = {
            name: Guest(Door(hosts, name), name, BLOCKS, SEED + number, self.failed)
            for number, name in enumerate(devices)}

    def failed(self, who, fault):
        tell(f'{who}: {type(fault).__name__} {fault}')
        self.fault = self.fault or fault

    def __enter__(self):
        for guest in self.guests.values():
            guest.start()
        return self

    def __exit__(self, kind, *_):
        for guest in self.guests.values():
            guest.is_over.set()
        # What is at a process that was stopped stays there until that is killed.
        for guest in self.guests.values():
            guest.join(60 if kind is None else 1)
        if kind is None and self.fault:
            raise self.fault

    def check(self):
        if self.fault:
            raise self.fault

    def progress(self, device):
        """Waits until a guest has written, flushed and compared since."""
        guest = self.guests[device]
        before = guest.writes, guest.flushes, guest.checks

        def has_gone_on():
            self.check()
            return all(now > then for now, then in zip((guest.writes, guest.flushes, guest.checks), before))
        eventually(f'the guest of {device} goes on', 60, has_gone_on)

    def compare(self):
        """Every block of every disk, with nothing written meanwhile."""
        for guest in self.guests.values():
            with guest.quiet:
                eventually(f'{guest.disk} is served', 60, guest.enter)
                guest.known()


@contextlib.contextmanager
def fleet(count=3, seconds=5, options=(), network=None):
    folder = tempfile.mkdtemp(prefix='ploopd-fleet-')
    etcd = Etcd(folder, host=BRIDGE if network else '127.0.0.1')
    hosts = Hosts(PROGRAM, folder, etcd, count, seconds, options, *([network.inside] if network else []))
    try:
        etcd.start()
        hosts.start()
        yield hosts, etcd
        for node in hosts.running():
            node.end()
        judge(hosts)
    except BaseException:
        tell(f'left: {folder}')
        for node in hosts.nodes:
            with contextlib.suppress(OSError):
                tell(f'{node.name}:\n' + '\n'.join(node.log().splitlines()[-15:]))
        raise
    finally:
        hosts.finish()
        etcd.kill()
    shutil.rmtree(folder)


def judge(hosts):
    """Our own check of every image that a descriptor names; all are closed."""
    for folder, _, names in os.walk(hosts.images):
        for name in names:
            if re.fullmatch(r'.*\.hds(\.e\d+)?', name):
                status = subprocess.run([PROGRAM, 'image', 'check', f'{folder}/{name}'], capture_output=True, text=True)
                # A file of an owner that was stopped or killed may be marked as in use; nothing else may be wrong.
                assert status.returncode in (0, 3), f'{folder}/{name}: {status.returncode} {status.stdout} {status.stderr}'


def served_again(hosts, device, seconds):
    start = time.monotonic()
    node = eventually(f'{device} is served again', seconds, lambda: hosts.server(device))
    return node, time.monotonic() - start


def test_move():
    """A disk goes round all nodes under a guest, with its checkpoint and a job that waits."""
    with fleet() as (hosts, _):
        first = hosts.nodes[0]
        hosts.make('vm1', first)
        first.call('POST', '/v1/devices/vm1/checkpoints', {'name': 'monday'})
        first.call('PATCH', '/v1/queue', {'paused': True})
        job = first.call('POST', '/v1/jobs', {'type': 'compact', 'device': 'vm1'})['id']
        with Guests(hosts, ['vm1']) as guests:
            guests.progress('vm1')
            for target in [*hosts.nodes[1:], first, *hosts.nodes[1:]]:
                owner = hosts.server('vm1')
                moved = owner.call('POST', '/v1/devices/vm1/move', {'to': target.name})
                assert moved['state'] == 'serving', moved
                guests.progress('vm1')
                for node in hosts.nodes:
                    status, reply = node.ask('GET', '/v1/devices/vm1')
                    assert status == (200 if node is target else 307), (node.name, status)
                    assert node is target or reply['code'] == 'device-owned-elsewhere', reply
            guests.compare()
        last = hosts.nodes[-1]
        names = [item['name'] for item in last.call('GET', '/v1/devices/vm1/checkpoints')['items']]
        assert names == ['monday'], names
        # It has waited at the first node, and was done by the second one.
        assert first.ask('GET', f'/v1/jobs/{job}')[0] == 404
        eventually('the job has gone along, and is done', 30, lambda: any(
            node.ask('GET', f'/v1/jobs/{job}')[1].get('state') == 'succeeded' for node in hosts.nodes[1:]))
        for status, code, body in [(404, 'node-not-found', 'nobody'), (409, 'node-unsuitable', last.name)]:
            found, reply = last.ask('POST', '/v1/devices/vm1/move', {'to': body})
            assert (found, reply['code']) == (status, code), reply


def test_kill():
    """An owner is killed, with locks that tell and with locks that do not; what was flushed is there, and so is he."""
    for options in ([], ['--shared-locks']):
        with fleet(options=options) as (hosts, _):
            hosts.make('vm1', hosts.nodes[0])
            with Guests(hosts, ['vm1']) as guests:
                guests.progress('vm1')
                hosts.nodes[0].kill()
                node, seconds = served_again(hosts, 'vm1', hosts.seconds + TAKEOVER_SECONDS)
                tell(f'  killed: served by {node.name} after {seconds:.1f} s')
                guests.progress('vm1')
                # He who comes back has it no more.
                hosts.nodes[0].start()
                eventually('he is in the fleet', 30, lambda: hosts.knows_all(hosts.nodes[0]))
                assert hosts.server('vm1') is node
                guests.progress('vm1')
                guests.compare()
            top = node.devices()['vm1']['deltas'][-1]['path']
            assert ('.hds.e' in top) == (not options), top


def test_restart():
    """A node that was killed and is back before its lease is over has its disks as before."""
    with fleet(seconds=20) as (hosts, _):
        hosts.make('vm1', hosts.nodes[0])
        with Guests(hosts, ['vm1']) as guests:
            for _ in range(3):
                guests.progress('vm1')
                hosts.nodes[0].kill()
                hosts.nodes[0].start()
                node, seconds = served_again(hosts, 'vm1', 15)
                tell(f'  back: served by {node.name} after {seconds:.1f} s')
                assert node is hosts.nodes[0]
                # By itself it knows that nobody else has had it: nothing is copied.
                assert node.devices()['vm1']['deltas'][-1]['path'] == 'main:vm1/root.hds'
            guests.progress('vm1')
            guests.compare()


def test_stop():
    """An owner is stopped beyond its lease and woken: he answers nobody, and what he still writes nobody serves."""
    for options in ([], ['--shared-locks']):
        with fleet(options=options) as (hosts, _):
            owner = hosts.nodes[0]
            hosts.make('vm1', owner)
            with Guests(hosts, ['vm1']) as guests:
                guests.progress('vm1')
                late = nbd.NBD()
                late.set_export_name('vm1')
                with guests.guests['vm1'].quiet:
                    late.connect_unix(owner.nbd_path)
                    # Whoever says goodbye to one who is stopped waits for ever.
                    guests.guests['vm1'].leave()
                    owner.stop()
                    # Sent to one who does not hear it.
                    requests = [
                        late.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(pattern(1 << 40))), block * 4096)
                        for block in range(16)]
                    requests.append(late.aio_pread(nbd.Buffer(4096), 0))
                node, seconds = served_again(hosts, 'vm1', hosts.seconds + TAKEOVER_SECONDS)
                tell(f'  stopped: served by {node.name} after {seconds:.1f} s')
                guests.progress('vm1')
                owner.go_on()
                eventually('he has hung up', 20, lambda: is_gone(late))
                answered = [index for index, request in enumerate(requests) if is_done(late, request)]
                assert not answered, f'he has answered {answered}'
                eventually('he has given it up', 20, lambda: 'vm1' not in owner.devices())
                guests.progress('vm1')
                guests.compare()
                assert '.hds.e' in node.devices()['vm1']['deltas'][-1]['path']


def is_gone(handle):
    with contextlib.suppress(nbd.Error):
        handle.poll(100)
    return handle.aio_is_dead() or handle.aio_is_closed()


def is_done(handle, cookie):
    try:
        return handle.aio_command_completed(cookie)
    except nbd.Error:
        return False


def test_leader():
    """etcd loses its leader: nobody notices."""
    with fleet(seconds=12) as (hosts, etcd):
        owner = hosts.nodes[0]
        hosts.make('vm1', owner)
        with Guests(hosts, ['vm1']) as guests:
            guests.progress('vm1')
            for _ in range(2):
                etcd.leader().kill()
                eventually('there is another leader', 30, etcd.leader)
                guests.progress('vm1')
                etcd.start()
            hosts.make('vm2', hosts.nodes[1])
            assert hosts.server('vm1') is owner
            assert guests.guests['vm1'].losses == 0, 'the guest was disconnected'
            guests.compare()


def test_outage():
    """All of etcd ends: owners stop in time, refuse changes, and serve again when it is back."""
    with fleet() as (hosts, etcd):
        owner = hosts.nodes[0]
        hosts.make('vm1', owner)
        with Guests(hosts, ['vm1']) as guests:
            guests.progress('vm1')
            etcd.kill()
            ended = time.monotonic()
            eventually('the owner serves nobody', hosts.seconds + 1, lambda: not lets_in(owner, 'vm1'))
            tell(f'  without etcd: nobody is served after {time.monotonic() - ended:.1f} s')
            status, reply = owner.ask('POST', '/v1/devices/vm1/snapshots', {})
            assert (status, reply['code']) == (503, 'fleet-unreachable'), reply
            node = next(item for item in owner.call('GET', '/v1/nodes')['items'] if item['self'])
            assert not node['serving'] and node['trouble'], node
            etcd.start()
            start = time.monotonic()
            node, seconds = served_again(hosts, 'vm1', 60)
            eventually('somebody is let in', 60, lambda: lets_in(hosts.server('vm1') or node, 'vm1'))
            tell(f'  with etcd again: served by {node.name} after {time.monotonic() - start:.1f} s')
            guests.progress('vm1')
            guests.compare()


def lets_in(node, device):
    handle = nbd.NBD()
    handle.set_export_name(device)
    try:
        handle.connect_unix(node.nbd_path)
        handle.pread(512, 0)
        handle.shutdown()
    except nbd.Error:
        return False
    return True


def test_partition():
    """A node that is cut off from etcd stops answering clients that reach it still, and has nothing to say when it is back."""
    network = Network(Hosts.NAMES[:3])
    try:
        with fleet(network=network) as (hosts, _):
            owner = hosts.nodes[0]
            hosts.make('vm1', owner)
            with Guests(hosts, ['vm1']) as guests:
                guests.progress('vm1')
                for _ in range(2):
                    network.cut(owner.name)
                    eventually('it serves nobody', hosts.seconds + 1, lambda: not lets_in(owner, 'vm1'))
                    others = [node for node in hosts.nodes if node is not owner]
                    node = eventually('another one serves it', hosts.seconds + TAKEOVER_SECONDS, lambda: next(
                        (node for node in others if lets_in(node, 'vm1')), None))
                    # Its guest is at the other one by now: what it has is compared with what it may have.
                    guests.progress('vm1')
                    network.cut(owner.name, False)
                    eventually('it has given it up', 30, lambda: 'vm1' not in owner.devices())
                    guests.progress('vm1')
                    owner = node
                guests.compare()
    finally:
        network.close()


def test_clock():
    """The clock of an owner is set by a day, there and back: its lease does not know, and neither do its guests."""
    library = next(path for path in glob.glob('/usr/lib/*/faketime/libfaketimeMT.so.1'))
    with fleet(seconds=6) as (hosts, _):
        owner = hosts.nodes[0]
        owner.end()
        setting = f'{owner.folder}/clock'
        set_clock(setting, '+0')
        owner.environment = {
            'LD_PRELOAD': library, 'FAKETIME_TIMESTAMP_FILE': setting, 'FAKETIME_NO_CACHE': '1',
            'FAKETIME_DONT_FAKE_MONOTONIC': '1', 'FAKETIME_FORCE_MONOTONIC_FIX': '0'}
        owner.start()
        eventually('it is in the fleet', 30, lambda: hosts.knows_all(owner))
        hosts.make('vm1', owner)
        with Guests(hosts, ['vm1']) as guests:
            guests.progress('vm1')
            for step in ('+1d', '-1d', '+0'):
                set_clock(setting, step)
                began = time.monotonic()
                # Longer than the lease: each renewal has to have met the other time.
                while time.monotonic() - began < hosts.seconds + 2:
                    guests.progress('vm1')
            assert hosts.server('vm1') is owner
            assert guests.guests['vm1'].losses == 0, 'the guest was disconnected'
            guests.compare()


def set_clock(path, text):
    with open(f'{path}.new', 'w') as file:
        file.write(f'{text}\n')
    os.replace(f'{path}.new', path)


def test_upgrade():
    """One node after the other is ended and begun anew under guests: they see that they are disconnected, and nothing else."""
    devices = ['vm1', 'vm2', 'vm3']
    with fleet() as (hosts, _):
        for device, node in zip(devices, hosts.nodes):
            hosts.make(device, node)
        with Guests(hosts, devices) as guests:
            for device in devices:
                guests.progress(device)
            for node in hosts.nodes:
                node.end()
                start = time.monotonic()
                eventually('all are served', 20, lambda: all(hosts.server(device) for device in devices))
                tell(f'  without {node.name}: all are served after {time.monotonic() - start:.1f} s')
                for device in devices:
                    guests.progress(device)
                node.start()
                eventually(f'{node.name} is back', 30, lambda node=node: hosts.knows_all(node))
            guests.compare()


def fio(node, device, *options):
    return [
        'fio', '--name=x', '--ioengine=nbd', f'--uri=nbd+unix:///{device}?socket={node.nbd_path}', '--bs=16k',
        '--size=12m', '--verify=crc32c', '--iodepth=8', '--output-format=terse', *options]


def test_fio():
    """An owner is killed under fio; what fio has written and flushed before it finds again at the next owner."""
    with fleet() as (hosts, _):
        owner = hosts.nodes[0]
        hosts.make('vm1', owner)
        subprocess.run(fio(owner, 'vm1', '--rw=randwrite', '--do_verify=0', '--end_fsync=1'), check=True, capture_output=True)
        # Beyond what was flushed, so that it is known what has to be there.
        under_way = subprocess.Popen(
            fio(owner, 'vm1', '--rw=randwrite', '--offset=12m', '--size=4m', '--time_based', '--runtime=600', '--do_verify=0'),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        client = eventually('fio is at work', 30, lambda: any(
            client['requests'] > 100 for export in owner.call('GET', '/v1/exports')['items'] for client in export['clients']))
        assert client
        owner.kill()
        assert under_way.wait(60) != 0, 'fio has not noticed'
        node, seconds = served_again(hosts, 'vm1', hosts.seconds + TAKEOVER_SECONDS)
        tell(f'  killed under fio: served by {node.name} after {seconds:.1f} s')
        subprocess.run(fio(node, 'vm1', '--rw=randread', '--verify_only'), check=True, capture_output=True)


def test_placement():
    """Devices want labels of their node, and no node takes more than it has room for."""
    with fleet() as (hosts, _):
        for node, options in zip(hosts.nodes, (['--node-label', 'zone=a'], ['--node-label', 'zone=a'], [
                '--node-label', 'zone=b'])):
            node.end()
            node.arguments += options
            node.start()
        eventually('all are there again', 30, lambda: all(hosts.knows_all(node) for node in hosts.nodes))
        hosts.make('vm1', hosts.nodes[0], labels={'node.zone': 'a'})
        status, reply = hosts.nodes[0].ask('POST', '/v1/devices/vm1/move', {'to': 'host-c'})
        assert (status, reply['code']) == (409, 'node-unsuitable'), reply
        hosts.nodes[0].end()
        node, seconds = served_again(hosts, 'vm1', 10)
        tell(f'  ended: served by {node.name} after {seconds:.1f} s')
        assert node is hosts.nodes[1], node.name


class Prober(threading.Thread):
    """Asks each node for each device again and again, and notes who has answered when."""

    def __init__(self, hosts, devices):
        super().__init__(daemon=True)
        self.hosts, self.devices, self.is_over = hosts, devices, threading.Event()
        self.handles, self.history = {}, {device: [] for device in devices}

    def run(self):
        while not self.is_over.is_set():
            for device in self.devices:
                for node in self.hosts.running():
                    self.ask(device, node)

    def ask(self, device, node):
        start = time.monotonic()
        try:
            handle = self.handles.get((device, node.name))
            if handle is None:
                handle = nbd.NBD()
                handle.set_export_name(device)
                handle.connect_unix(node.nbd_path)
                self.handles[device, node.name] = handle
            handle.pread(512, 0)
            self.history[device].append((start, time.monotonic(), node.name))
        except nbd.Error:
            self.handles.pop((device, node.name), None)

    def runs(self, device):
        """The nodes that have answered, one behind the other."""
        found = []
        for _, _, name in self.history[device]:
            if not found or found[-1] != name:
                found.append(name)
        return found


def test_many():
    """Many devices move and fail over: none is lost, none is served by two, as etcd's own history has it."""
    devices = [f'vm{number:03}' for number in range(DEVICES)]
    with fleet(seconds=6) as (hosts, etcd):
        history = OwnerHistory(etcd)
        history.start()
        for number, device in enumerate(devices):
            hosts.make(device, hosts.nodes[number % 3], size=1 << 20)
        prober = Prober(hosts, devices)
        prober.start()
        for number, device in enumerate(devices[:DEVICES // 3]):
            owner = hosts.server(device)
            target = hosts.nodes[(hosts.nodes.index(owner) + 1) % 3]
            moved = owner.call('POST', f'/v1/devices/{device}/move', {'to': target.name})
            assert moved['state'] == 'serving', moved
        tell(f'  {DEVICES // 3} moved')
        victim = hosts.nodes[1]
        lost = set(victim.devices())
        assert lost
        victim.kill()
        start = time.monotonic()
        others = [node for node in hosts.nodes if node is not victim]

        def all_served():
            states = {}
            for node in others:
                for name, item in node.devices().items():
                    assert name not in states, f'{name} is at two nodes'
                    states[name] = item['state']
            return set(states) == set(devices) and all(state == 'online' for state in states.values())
        eventually('all devices are served', hosts.seconds + TAKEOVER_SECONDS + DEVICES / 20, all_served)
        tell(f'  {len(lost)} devices of {victim.name} are served again after {time.monotonic() - start:.1f} s')
        shares = [len(node.devices()) for node in others]
        assert min(shares) * 4 > max(shares), f'they are not spread: {shares}'
        prober.is_over.set()
        prober.join(60)
        owners = etcd.values('/ploopd/v1/owners/')
        assert set(owners) == set(devices), set(devices) ^ set(owners)
        history.is_over.set()
        history.join(10)
        for device in devices:
            seen, known = prober.runs(device), [name for _, name in history.owners[device]]
            rest = iter(known)
            assert all(name in rest for name in seen), f'{device}: answered by {seen}, owned by {known}'
            assert seen, f'{device}: nobody was seen'


CASES = {name[5:]: case for name, case in list(globals().items()) if name.startswith('test_')}


def main():
    print(f'seed {SEED}', flush=True)
    failed = []
    for name in sys.argv[1:] or CASES:
        tell(f'{name}: {" ".join(CASES[name].__doc__.split())}')
        try:
            CASES[name]()
        except Exception as fault:  # told, and the others follow
            tell(f'{name} failed: {type(fault).__name__} {fault}')
            failed.append(name)
    tell(f'failed: {", ".join(failed)}' if failed else f'{len(sys.argv[1:] or CASES)} cases, all as they should be')
    return 1 if failed else 0


if __name__ == '__main__':
    sys.exit(main())
