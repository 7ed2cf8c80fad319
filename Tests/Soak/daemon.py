"""The service under test: a process that is started, killed and asked, and what it takes of the host."""
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time


class Gone(Exception):
    """The service did not answer: it was killed, or ended, meanwhile."""


class Refused(Exception):
    """A problem; it may be one that was to be expected."""

    def __init__(self, status, body):
        super().__init__(f'{status} {body.get("code")}: {body.get("detail", body)}')
        self.status, self.code, self.body = status, body.get('code', ''), body


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout):
        super().__init__('localhost', timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Daemon:
    def __init__(self, program, folder, images):
        self.program, self.folder, self.images = program, folder, images
        self.api_path, self.nbd_path = f'{folder}/api.sock', f'{folder}/nbd.sock'
        self.arguments = [
            program, 'serve', '--state-dir', f'{folder}/state', '--root', f'main={images}',
            '--root', f'servers={folder}/servers',
            '--http-socket', self.api_path, '--http-listen', 'none', '--nbd-socket', self.nbd_path,
            '--nbd-listen', 'none', '--log-level', 'notice']
        self.process, self.environment = None, {}
        # Where it says that it is ready, as a supervisor has it (man 3 sd_notify).
        self.news = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.news.bind(f'{folder}/notify')
        self.news.settimeout(1)
        # Set while it is: whoever finds nobody waits for that.
        self.ready = threading.Event()
        # Whoever starts or ends it has it to himself.
        self.lock = threading.RLock()
        self.starts = 0

    def start(self):
        with self.lock:
            log = open(f'{self.folder}/log', 'ab')
            self.process = subprocess.Popen(
                self.arguments, stdout=log, stderr=log, env={
                    **os.environ, 'NOTIFY_SOCKET': f'{self.folder}/notify', **self.environment})
            log.close()
            self.starts += 1
            self.await_ready()
            self.ready.set()

    def await_ready(self, seconds=120):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f'ploopd ended with {self.process.returncode}: {self.tail()}')
            try:
                if b'READY=1' in self.news.recv(4096).split(b'\n'):
                    return
            except socket.timeout:
                pass
        raise AssertionError(f'ploopd is not ready after {seconds} s: {self.tail()}')

    def forget_news(self):
        """Of the process that has ended."""
        self.news.setblocking(False)
        try:
            while self.news.recv(4096):
                pass
        except BlockingIOError:
            pass
        self.news.settimeout(1)

    def kill(self):
        with self.lock:
            self.ready.clear()
            self.process.kill()
            self.process.wait()
            self.forget_news()

    def end(self, seconds=60):
        with self.lock:
            self.ready.clear()
            self.process.send_signal(signal.SIGTERM)
            status = self.process.wait(seconds)
            self.forget_news()
            assert status == 0, f'SIGTERM ended ploopd with {status}: {self.tail()}'

    def tail(self):
        with open(f'{self.folder}/log', errors='replace') as log:
            return ''.join(log.readlines()[-20:])

    def ask(self, method, path, body=None, headers=None, timeout=90):
        connection = UnixConnection(self.api_path, timeout)
        try:
            text = None if body is None else json.dumps(body)
            headers = dict(headers or {})
            if text is not None:
                headers['Content-Type'] = 'application/json'
            connection.request(method, path, text, headers)
            reply = connection.getresponse()
            data = reply.read()
            return reply.status, json.loads(data) if data else {}
        except (OSError, http.client.HTTPException) as error:
            raise Gone(str(error)) from None
        finally:
            connection.close()

    def call(self, method, path, body=None, headers=None):
        """The body of a reply that is no problem."""
        status, reply = self.ask(method, path, body, headers)
        if status == 503 and reply.get('code') in ('shutting-down', 'not-ready'):
            raise Gone('it is ending, or has just begun')
        if status >= 400:
            raise Refused(status, reply)
        return reply

    def usage(self):
        """Memory of its own in KiB, threads, descriptors, and how many more than that are of images."""
        folder = f'/proc/{self.process.pid}'
        with open(f'{folder}/status') as status:
            values = dict(line.split(':', 1) for line in status)
        descriptors = []
        for name in os.listdir(f'{folder}/fd'):
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                descriptors.append(os.readlink(f'{folder}/fd/{name}'))
        of_images = sum(path.startswith(f'{self.images}/') for path in descriptors)
        return int(values['RssAnon'].split()[0]), int(values['Threads']), len(descriptors) - of_images, of_images
