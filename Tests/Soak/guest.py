"""A client of a disk that knows what may stand in each of its blocks.

A block holds the number of the write that made it, all over. While the service lives a block holds what was answered
last; once it was killed, what was flushed last or anything that was written since.
"""
import errno
import random
import struct
import threading

import nbd

BLOCK = 4096
EXPECTED_ERRORS = {errno.ENOTCONN, errno.ESHUTDOWN}


def pattern(number):
    return struct.pack('<Q', number) * (BLOCK // 8) if number else bytes(BLOCK)


def number_of(data):
    """The number that a block holds all over; None of a block that no single write made."""
    number = struct.unpack_from('<Q', data)[0]
    return number if data == pattern(number) else None


def read_numbers(handle, blocks):
    """The numbers of the first blocks of an export."""
    numbers, step = [], 256
    for first in range(0, blocks, step):
        count = min(step, blocks - first)
        data = handle.pread(count * BLOCK, first * BLOCK)
        numbers += [number_of(data[i * BLOCK:(i + 1) * BLOCK]) for i in range(count)]
    return numbers


class Quiet:
    """A lock that is given to whoever waits for it: who gives it back and wants it again stands behind him."""

    def __init__(self):
        self.queue, self.lock = threading.Lock(), threading.Lock()

    def __enter__(self):
        with self.queue:
            self.lock.acquire()

    def __exit__(self, *_):
        self.lock.release()


class Guest(threading.Thread):
    def __init__(self, daemon, name, blocks, seed, failed):
        super().__init__(name=f'guest {name}', daemon=True)
        self.daemon_, self.disk, self.blocks, self.failed = daemon, name, blocks, failed
        self.random = random.Random(seed)
        # What each block holds; None while it is not known, and has to be one of its possible ones.
        self.sure = [0] * blocks
        # Those that a kill can leave: what was flushed last, and what was written since.
        self.possible = [[0] for _ in range(blocks)]
        self.loose = set()
        self.next_number = 1
        self.is_over = threading.Event()
        # Held for as long as the guest writes nothing: whoever takes it knows the disk.
        self.quiet = Quiet()
        self.handle = None
        self.writes = self.flushes = self.checks = self.losses = self.full = 0

    # The loop

    def run(self):
        try:
            while not self.is_over.is_set():
                with self.quiet:
                    is_served = self.turn()
                if not is_served:
                    self.daemon_.ready.wait(1)
        except BaseException as fault:  # told by the main thread
            self.failed(self.disk, fault)
        finally:
            self.leave()

    def turn(self):
        """Whether somebody serves the disk."""
        try:
            if not self.enter():
                return False
            choice = self.random.random()
            if choice < 0.55:
                self.write_some()
            elif choice < 0.70:
                self.flush()
            elif choice < 0.78:
                self.clear()
            else:
                self.check_some()
        except nbd.Error as error:
            self.lost(error)
        return True

    def lost(self, error):
        """Errors that mean something are: no room, and a service that went away."""
        # Of a service that was killed the connection is dead, of one that ended in order it is closed.
        if self.handle is not None and not (self.handle.aio_is_dead() or self.handle.aio_is_closed()):
            if error.errnum == errno.ENOSPC:
                self.full += 1
                return
            if error.errnum not in EXPECTED_ERRORS:
                raise AssertionError(f'{self.disk}: {error.string} (errno {error.errnum})')
        self.losses += 1
        self.leave()

    def enter(self):
        if self.handle is not None:
            return True
        handle = nbd.NBD()
        handle.set_export_name(self.disk)
        try:
            handle.connect_unix(self.daemon_.nbd_path)
        except nbd.Error:
            return False
        self.handle = handle
        # What was not flushed may have been lost.
        for block in self.loose:
            self.sure[block] = None
        self.check(range(self.blocks))
        return True

    def leave(self):
        handle, self.handle = self.handle, None
        if handle is not None:
            try:
                handle.shutdown()
            except nbd.Error:
                pass

    # Requests

    def begin(self, blocks, number):
        """From now on they may hold the number."""
        for block in blocks:
            self.possible[block].append(number)
            self.sure[block] = None
            self.loose.add(block)

    def answered(self, blocks, number, is_durable):
        for block in blocks:
            self.sure[block] = number
            if is_durable:
                self.settle(block)

    def settle(self, block):
        if self.sure[block] is not None:
            self.possible[block] = [self.sure[block]]
            self.loose.discard(block)

    def write_some(self):
        under_way = []
        for block in self.random.sample(range(self.blocks), self.random.randint(1, 8)):
            number = self.next_number
            self.next_number += 1
            is_durable = self.random.random() < 0.1
            self.begin([block], number)
            under_way.append((block, number, is_durable, self.handle.aio_pwrite(
                nbd.Buffer.from_bytearray(bytearray(pattern(number))), block * BLOCK,
                flags=nbd.CMD_FLAG_FUA if is_durable else 0)))
        failure = None
        # All of them are waited for: what is still under way might be carried out behind the next request.
        for block, number, is_durable, cookie in under_way:
            try:
                while not self.handle.aio_command_completed(cookie):
                    self.handle.poll(1000)
                self.answered([block], number, is_durable)
                self.writes += 1
            except nbd.Error as error:
                failure = error
        if failure is not None:
            raise failure

    def clear(self):
        first = self.random.randrange(self.blocks)
        count = min(self.random.choice([1, 16, 300]), self.blocks - first)
        blocks = range(first, first + count)
        self.begin(blocks, 0)
        # Zeroes and no trim, which may leave what was there.
        self.handle.zero(count * BLOCK, first * BLOCK)
        self.answered(blocks, 0, False)
        self.writes += 1

    def flush(self):
        loose = list(self.loose)
        self.handle.flush()
        for block in loose:
            self.settle(block)
        self.flushes += 1

    def check_some(self):
        first = self.random.randrange(self.blocks)
        self.check(range(first, min(first + 64, self.blocks)))

    def check(self, blocks):
        step = 256
        for start in range(blocks.start, blocks.stop, step):
            part = range(start, min(start + step, blocks.stop))
            data = self.handle.pread(len(part) * BLOCK, part.start * BLOCK)
            for index, block in enumerate(part):
                self.checked(block, number_of(data[index * BLOCK:(index + 1) * BLOCK]))
        self.checks += len(blocks)

    def checked(self, block, number):
        sure, possible = self.sure[block], self.possible[block]
        if number != sure if sure is not None else number not in possible:
            raise AssertionError(
                f'block {block} of {self.disk} holds {number}, and may hold {possible if sure is None else sure}')
        self.sure[block] = number

    # For those who hold ``quiet``

    def known(self):
        """Everything is flushed, and read: what each block holds."""
        if not self.enter():
            raise nbd.Error('nobody serves the disk', 0)
        self.flush()
        self.check(range(self.blocks))
        self.flush()
        return list(self.sure)

    def becomes(self, numbers):
        """The disk has gone back to another state."""
        self.sure = list(numbers)
        self.possible = [[number] for number in numbers]
        self.loose = set()
