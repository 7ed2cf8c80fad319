"""What happens to a service: it is killed, ended, stopped, its file system is full, its target dies, strangers come."""
import os
import random
import signal
import socket
import subprocess
import threading


class SlowTarget:
    """A server that takes its time, and may be gone."""

    def __init__(self, folder, mebibytes):
        self.folder, self.mebibytes, self.process = folder, mebibytes, None
        self.uri = f'nbd+unix:///?socket={folder}/slow.sock'

    def start_if_gone(self):
        if self.process is not None and self.process.poll() is None:
            return
        path = f'{self.folder}/slow.sock'
        if os.path.exists(path):
            os.unlink(path)
        self.process = subprocess.Popen([
            'nbdkit', '-f', '--exit-with-parent', '-U', path, '--filter=delay', 'memory', f'{self.mebibytes}M',
            'wdelay=3ms'], stderr=subprocess.DEVNULL)
        # It is there once somebody can connect.
        while self.process.poll() is None:
            with socket.socket(socket.AF_UNIX) as client:
                if client.connect_ex(path) == 0:
                    return

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()


class Mishaps(threading.Thread):
    def __init__(self, daemon, images, target, seed, failed):
        super().__init__(name='mishaps', daemon=True)
        self.daemon_, self.images, self.target, self.failed = daemon, images, target, failed
        self.random = random.Random(seed)
        self.is_over = threading.Event()
        self.happened = {}

    def run(self):
        try:
            while not self.is_over.wait(self.random.uniform(3, 15)):
                mishap = self.random.choice([
                    self.killed, self.killed, self.killed, self.ended, self.stopped, self.full, self.full_and_killed,
                    self.target_dies, self.strangers])
                mishap()
                self.happened[mishap.__name__] = self.happened.get(mishap.__name__, 0) + 1
        except BaseException as fault:  # told by the main thread
            self.failed('mishaps', fault)

    def killed(self):
        with self.daemon_.lock:
            self.daemon_.kill()
            self.daemon_.start()

    def ended(self):
        with self.daemon_.lock:
            self.daemon_.end()
            self.daemon_.start()

    def stopped(self):
        """By a debugger, or by a host that swaps."""
        self.daemon_.process.send_signal(signal.SIGSTOP)
        self.is_over.wait(self.random.uniform(0.1, 3))
        self.daemon_.process.send_signal(signal.SIGCONT)

    def fill(self):
        with open(f'{self.images}/filler', 'ab') as filler:
            room = os.statvfs(self.images)
            try:
                os.posix_fallocate(filler.fileno(), filler.tell(), max(1, room.f_bavail * room.f_bsize - (64 << 10)))
            except OSError:
                pass

    def empty(self):
        os.unlink(f'{self.images}/filler')

    def full(self):
        self.fill()
        try:
            self.is_over.wait(self.random.uniform(1, 6))
        finally:
            self.empty()

    def full_and_killed(self):
        """It is not ready before there is room again, if its own state has none."""
        self.fill()
        try:
            self.is_over.wait(self.random.uniform(0.5, 2))
            with self.daemon_.lock:
                self.daemon_.kill()
                self.empty()
                self.daemon_.start()
        finally:
            if os.path.exists(f'{self.images}/filler'):
                self.empty()

    def target_dies(self):
        self.target.kill()
        self.is_over.wait(self.random.uniform(0, 3))
        self.target.start_if_gone()

    def strangers(self):
        """Clients that connect, say something or nothing, and stay for a while."""
        clients = []
        for path in (self.daemon_.api_path, self.daemon_.nbd_path):
            for _ in range(40):
                client = socket.socket(socket.AF_UNIX)
                client.settimeout(1)
                try:
                    client.connect(path)
                    client.send(self.random.randbytes(self.random.randint(0, 64)))
                except OSError:
                    pass
                clients.append(client)
        self.is_over.wait(self.random.uniform(0, 5))
        for client in clients:
            client.close()
