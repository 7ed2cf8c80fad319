"""Disks, guests that know what they wrote, operations and mishaps, for as long as SOAK says: nothing may be lost, and
nothing may grow.

    SOAK=600 PLOOPD=.build/release/ploopd PLOOPD_SEED=1 soak.py REPORT

Ends with 0 and a report in Markdown, or with 1 and what was wrong; the folder is left then.
"""
import contextlib
import glob
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time

from daemon import Daemon
from guest import Guest
from mishaps import Mishaps, SlowTarget
from operations import Operations

SECONDS = float(os.environ.get('SOAK', '600'))
SEED = int(os.environ.get('PLOOPD_SEED', random.randrange(1 << 31)))
PROGRAM = os.path.abspath(os.environ.get('PLOOPD', '.build/release/ploopd'))
DISKS = int(os.environ.get('SOAK_DISKS', '6'))
BLOCKS = 4096
IMAGES_MEBIBYTES = 3072

began = time.monotonic()


def tell(text):
    print(f'{time.monotonic() - began:7.1f} s  {text}', flush=True)


class World:
    def __init__(self):
        self.folder = tempfile.mkdtemp(prefix='ploopd-soak-')
        self.images = f'{self.folder}/images'
        self.make_filesystem()
        self.daemon = Daemon(PROGRAM, self.folder, self.images)
        self.random = random.Random(SEED)
        os.mkdir(f'{self.folder}/servers')
        self.target = SlowTarget(f'{self.folder}/servers', 512)
        self.guests = {}
        self.trouble = threading.Event()
        self.fault = None

    def failed(self, who, fault):
        tell(f'{who}: {type(fault).__name__} {fault}')
        self.fault = self.fault or fault
        self.trouble.set()

    def make_filesystem(self):
        """One of its own, since it is to be filled."""
        image = f'{self.folder}/images.ext4'
        os.mkdir(self.images)
        os.truncate(os.open(image, os.O_CREAT | os.O_RDWR), IMAGES_MEBIBYTES << 20)
        subprocess.run(['mkfs.ext4', '-q', '-m', '0', '-b', '4096', image], check=True)
        subprocess.run(['mount', '-o', 'loop', image, self.images], check=True)

    def make_disks(self):
        self.daemon.start()
        for name in ('store', 'snapshots'):
            self.daemon.call('POST', '/v1/targets', {'name': name, 'type': 'directory', 'path': f'main:{name}'})
        for number in range(DISKS):
            name = f'disk{number}'
            self.daemon.call('POST', '/v1/devices', {
                'id': name, 'create': {'directory': f'main:{name}', 'size': 32 << 20, 'cluster_size': 1 << 16},
                'export': {'name': name}})
            self.guests[name] = Guest(self.daemon, name, BLOCKS, self.random.random(), self.failed)

    def threads(self):
        return [*self.guests.values(), self.operations, self.mishaps]

    def run(self, seconds):
        """Until the time is over, or something is wrong."""
        deadline = time.monotonic() + seconds
        while not self.trouble.wait(max(0, min(30, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                return
            tell(self.line())
        raise self.fault

    def line(self):
        guests = self.guests.values()
        return (f'{sum(g.writes for g in guests)} writes, {sum(g.flushes for g in guests)} flushes, '
                f'{sum(g.checks for g in guests)} blocks checked, {sum(self.operations.done.values())} operations, '
                f'{self.daemon.starts} starts, {self.memory()}')

    def memory(self):
        try:
            return f'{self.daemon.usage()[0]} KiB'
        except OSError:
            return 'not running'

    @contextlib.contextmanager
    def calm(self):
        """Nobody is connected, and nothing is done by those who would."""
        with contextlib.ExitStack() as stack:
            for guest in self.guests.values():
                stack.enter_context(guest.quiet)
                guest.leave()
            yield

    def usage(self):
        """Of a service that has seen its last client leave."""
        deadline = time.monotonic() + 60
        with self.calm():
            while any(export['clients'] for export in self.daemon.call('GET', '/v1/exports')['items']):
                assert time.monotonic() < deadline, 'clients that have left are still there'
            usage = self.daemon.usage()
            # A snapshot is a file more: one descriptor is the file's, one may be its folder's.
            files = sum(len(names) for _, _, names in os.walk(self.images))
            assert usage[3] <= 2 * files, f'{usage[3]} descriptors are of images that have {files} files'
            return usage

    def soak(self):
        self.make_disks()
        self.operations = Operations(self.daemon, self.guests, self.random.random(), self.failed, self.images, self.target)
        self.mishaps = Mishaps(self.daemon, self.images, self.target, self.random.random(), self.failed)
        for thread in self.threads():
            thread.start()
        self.run(SECONDS * 0.7)
        self.mishaps.is_over.set()
        self.mishaps.join()
        # One life of the service from here on, in which nothing may grow.
        self.mishaps.ended()
        self.run(SECONDS * 0.1)
        before = self.usage()
        self.run(SECONDS * 0.2)
        self.operations.is_over.set()
        self.operations.join(120)
        after = self.usage()
        self.end()
        return before, after

    def end(self):
        for guest in self.guests.values():
            guest.is_over.set()
        for guest in self.guests.values():
            guest.join(120)
        self.run(0)
        for guest in self.guests.values():
            with guest.quiet:
                guest.known()
                guest.leave()
        self.daemon.end()
        for image in sorted(glob.glob(f'{self.images}/disk*/*.hds')):
            for judge in ([PROGRAM, 'image', 'check', image], ['qemu-img', 'check', '-q', '-f', 'parallels', image]):
                judged = subprocess.run(judge, capture_output=True, text=True)
                assert judged.returncode == 0, f'{" ".join(judge)}: {judged.stdout}{judged.stderr}'

    def clear(self):
        if self.daemon.process is not None and self.daemon.process.poll() is None:
            self.daemon.process.kill()
            self.daemon.process.wait()
        self.target.kill()

    def remove(self):
        subprocess.run(['umount', '-l', self.images], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)


def report(world, before, after):
    guests = world.guests.values()
    rows = [
        ('seed', SEED), ('length', f'{SECONDS:.0f} s'), ('disks', DISKS),
        ('writes', sum(g.writes for g in guests)), ('flushes', sum(g.flushes for g in guests)),
        ('blocks compared', sum(g.checks for g in guests)),
        ('writes without room', sum(g.full for g in guests)), ('connections lost', sum(g.losses for g in guests)),
        ('starts of the service', world.daemon.starts)]
    rows += [(f'mishap: {name.replace("_", " ")}', count) for name, count in sorted(world.mishaps.happened.items())]
    rows += [(f'operation: {name.replace("_", " ")}', count)
             for name, count in sorted(world.operations.done.items())]
    rows += [(f'refused, as it should be: {name}', count) for name, count in sorted(world.operations.refused.items())]
    names = ('memory of its own, KiB', 'threads', 'descriptors but those of images', 'descriptors of images')
    rows += [(f'{name}: in the last life, early and at its end', f'{a} and {b}')
             for name, a, b in zip(names, before, after)]
    processors = os.cpu_count()
    return (f'{platform.system()} {platform.release()}, {processors} processors.\n\n| what | |\n|---|---|\n'
            + ''.join(f'| {name} | {value} |\n' for name, value in rows))


def main():
    tell(f'seed {SEED}, {SECONDS:.0f} s, {PROGRAM}')
    world = World()
    try:
        before, after = world.soak()
        # What is free is given back each half minute; a short run knows only what is far too much.
        more = (8 if SECONDS >= 500 else 64) << 10
        assert after[0] <= before[0] * 1.25 + more, f'memory has grown: {before[0]} to {after[0]} KiB'
        assert after[1] <= before[1] + 4, f'threads have grown: {before[1]} to {after[1]}'
        assert after[2] <= before[2] + 4, f'descriptors have grown: {before[2]} to {after[2]}'
    except BaseException as fault:
        tell(f'FAILED: {type(fault).__name__} {fault}')
        tell(f'seed {SEED}; the folder is {world.folder}')
        print(world.daemon.tail() if world.daemon.process else '')
        world.clear()
        return 1
    text = report(world, before, after)
    print(text)
    if len(sys.argv) > 1:
        with open(sys.argv[1], 'w') as file:
            file.write(text)
    world.clear()
    world.remove()
    return 0


if __name__ == '__main__':
    sys.exit(main())
