"""What people do with disks, at random, beside guests that use them; and what they made is looked at."""
import random
import shutil
import threading
import time
import uuid

import nbd

from daemon import Gone, Refused
from guest import read_numbers

# Refusals that something else explains: who came first, what is full, what is not there any more; and a backup whose
# copies were slower than guests may have to wait for.
EXPECTED = {
    'device-busy', 'device-in-use', 'export-in-use', 'image-full', 'insufficient-space', 'nothing-to-merge',
    'push-backup-expired', 'snapshot-has-branches', 'target-unreachable',
}


class Operations(threading.Thread):
    def __init__(self, daemon, guests, seed, failed, images, slow_target):
        super().__init__(name='operations', daemon=True)
        self.daemon_, self.guests, self.failed = daemon, guests, failed
        self.images, self.slow_target = images, slow_target
        self.random = random.Random(seed)
        self.is_over = threading.Event()
        # What each snapshot of each disk holds, by its UUID; None where nobody knows.
        self.snapshots = {name: {} for name in guests}
        self.done, self.refused = {}, {}
        self.made = 0

    def run(self):
        choices = [
            (self.snapshot, 6), (self.delete, 4), (self.look, 4), (self.merge, 2), (self.compact, 2),
            (self.restore, 3), (self.back_up, 3), (self.back_up_slowly, 1), (self.go_back, 1), (self.clone, 2),
            (self.grow, 1)]
        try:
            while not self.is_over.is_set():
                operation = self.random.choices([c for c, _ in choices], [w for _, w in choices])[0]
                name = self.random.choice(list(self.guests))
                try:
                    operation(name)
                    self.count(self.done, operation.__name__)
                except Refused as problem:
                    # 507: neither has the service's own state room.
                    if problem.code not in EXPECTED and problem.status != 507:
                        raise AssertionError(f'{operation.__name__} of {name}: {problem}') from None
                    self.count(self.refused, f'{operation.__name__}: {problem.code}')
                except (Gone, nbd.Error) as error:
                    self.count(self.refused, f'{operation.__name__}: {type(error).__name__}')
                    self.is_over.wait(0.5)
        except BaseException as fault:  # told by the main thread
            self.failed('operations', fault)

    @staticmethod
    def count(counts, what):
        counts[what] = counts.get(what, 0) + 1

    def call(self, method, path, body=None, headers=None):
        return self.daemon_.call(method, path, body, headers)

    def surely(self, method, path, body):
        """Asks until there is an answer: what a kill interrupts is done once."""
        key = {'Idempotency-Key': uuid.uuid4().hex}
        while True:
            try:
                return self.call(method, path, body, key)
            except Gone:
                if self.is_over.is_set():
                    raise
                self.daemon_.ready.wait(1)

    def job(self, kind, device=None, params=None, seconds=600):
        """Runs a job to its end, over kills of the service."""
        body = {'type': kind, 'params': params or {}}
        if device:
            body['device'] = device
        key = {'Idempotency-Key': uuid.uuid4().hex}
        deadline = time.monotonic() + seconds
        id = None
        while time.monotonic() < deadline and not self.is_over.is_set():
            try:
                if id is None:
                    id = self.call('POST', '/v1/jobs', body, key)['id']
                job = self.call('GET', f'/v1/jobs/{id}')
                if job['state'] in ('succeeded', 'failed', 'cancelled'):
                    if job['state'] != 'succeeded':
                        raise Refused(0, job.get('error') or {'code': job['state']})
                    return job
            except Gone:
                pass
            self.is_over.wait(0.1)
        if self.is_over.is_set():
            raise Gone('the end has come')
        raise AssertionError(f'{kind} of {device} has not ended after {seconds} s: {job}')

    # Snapshots

    def known_snapshots(self, name):
        """UUIDs of what is there, with what they hold where that is known."""
        items = self.call('GET', f'/v1/devices/{name}/snapshots')['items']
        there = {item['uuid'].strip('{}'): item for item in items if not item.get('is_top')}
        for id in set(self.snapshots[name]) - set(there):
            raise AssertionError(f'{name} has lost its snapshot {id}')
        return there

    def snapshot(self, name):
        if len(self.known_snapshots(name)) >= 5:
            return self.delete(name)
        guest = self.guests[name]
        id = str(uuid.uuid4())
        with guest.quiet:
            numbers = guest.known()
            self.surely('POST', f'/v1/devices/{name}/snapshots', {'uuid': '{' + id + '}'})
        self.snapshots[name][id] = numbers

    def any_snapshot(self, name, is_known=True):
        there = self.known_snapshots(name)
        ids = [id for id in there if not is_known or id in self.snapshots[name]]
        if not ids:
            raise Gone('there is none')
        return self.random.choice(ids)

    def delete(self, name):
        id = self.any_snapshot(name, is_known=False)
        # Whatever becomes of the job, nobody counts on it from here on.
        self.snapshots[name].pop(id, None)
        self.job('delete_snapshot', name, {'snapshot': '{' + id + '}'})

    def merge(self, name):
        # Which one goes is for the service to say; until then nobody counts on any.
        known, self.snapshots[name] = self.snapshots[name], {}
        self.job('merge', name)
        there = self.known_snapshots(name)
        self.snapshots[name] = {id: numbers for id, numbers in known.items() if id in there}

    def look(self, name):
        """A snapshot, by an export of its own."""
        id = self.any_snapshot(name)
        export = f'{name}.look.{self.made}'
        self.made += 1
        self.call('POST', '/v1/exports', {'name': export, 'device': name, 'snapshot': id})
        try:
            self.expect(export, self.snapshots[name][id], f'snapshot {id} of {name}')
        finally:
            self.quietly('DELETE', f'/v1/exports/{export}?mode=hard')

    def expect(self, export, numbers, what):
        handle = nbd.NBD()
        handle.set_export_name(export)
        handle.connect_unix(self.daemon_.nbd_path)
        found = read_numbers(handle, len(numbers))
        handle.shutdown()
        wrong = [(i, a, b) for i, (a, b) in enumerate(zip(found, numbers)) if a != b]
        if wrong:
            raise AssertionError(f'{what}: {len(wrong)} blocks are wrong: (block, found, expected) {wrong[:4]}')

    def quietly(self, method, path):
        """For what is to be gone: the service may have been killed before, or while, it went."""
        problem, deadline = None, time.monotonic() + 300
        while time.monotonic() < deadline:
            try:
                return self.call(method, path, headers={'Prefer': 'wait=60'})
            except Refused as refused:
                problem = refused
                if problem.status == 404:
                    return None
                # There may be no room to write down that it is gone; the mishaps make some.
                self.is_over.wait(0.2)
            except Gone:
                self.daemon_.ready.wait(1)
        raise AssertionError(f'{path} does not go: {problem}')

    def go_back(self, name):
        id = self.any_snapshot(name)
        guest = self.guests[name]
        with guest.quiet:
            guest.leave()
            self.surely('POST', f'/v1/devices/{name}/snapshots/{id}/switch', {'discard_top': True})
            guest.becomes(self.snapshots[name][id])

    # The disk

    def compact(self, name):
        self.job('compact', name, {'what': ['zeroes', 'holes', 'shrink']})

    def grow(self, name):
        size = self.call('GET', f'/v1/devices/{name}')['size']
        if size < 256 << 20:
            self.job('resize', name, {'size': size + (8 << 20)})

    # Copies

    def back_up(self, name):
        self.job('backup', name, {'target': 'store'})
        self.job('verify', None, {'target': 'store', 'device': name})
        self.job('prune', None, {'target': 'store', 'device': name, 'keep_last': 3})

    def back_up_slowly(self, name):
        """To a server that is slow, and may die."""
        self.slow_target.start_if_gone()
        self.job('backup', name, {'to': {'type': 'nbd', 'uri': self.slow_target.uri}})

    def restore(self, name):
        id = self.any_snapshot(name)
        numbers = self.snapshots[name][id]
        point = self.job('backup', name, {'target': 'snapshots', 'snapshot': '{' + id + '}'})
        self.job('prune', None, {'target': 'snapshots', 'device': name, 'keep_last': 3})
        self.copied(numbers, f'the restored snapshot {id} of {name}', 'restore', None, {
            'target': 'snapshots', 'backup': point['result']['backup']})

    def clone(self, name):
        id = self.any_snapshot(name)
        self.copied(self.snapshots[name][id], f'the clone of snapshot {id} of {name}', 'clone', name, {
            'snapshot': '{' + id + '}'})

    def copied(self, numbers, what, kind, device, params):
        copy = f'copy{self.made}'
        self.made += 1
        to = {'id': copy, 'directory': f'main:{copy}', 'export': copy}
        try:
            self.job(kind, device, {**params, 'to': to})
            self.expect(copy, numbers, what)
        finally:
            self.quietly('DELETE', f'/v1/devices/{copy}?mode=hard')
            shutil.rmtree(f'{self.images}/{copy}', ignore_errors=True)
