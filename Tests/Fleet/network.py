"""Hosts that can be cut off: a network namespace for each, and a bridge that all of them are at. Takes root, and a network
namespace of the test's own (scripts/test-fleet)."""
import subprocess

BRIDGE = '10.77.0.1'


def ip(*words):
    subprocess.run(['ip', *words], check=True, capture_output=True)


class Network:
    def __init__(self, names):
        self.names = names
        ip('link', 'add', 'fleet', 'type', 'bridge')
        ip('address', 'add', f'{BRIDGE}/24', 'dev', 'fleet')
        ip('link', 'set', 'fleet', 'up')
        for number, name in enumerate(names):
            ip('netns', 'add', name)
            ip('link', 'add', f'to-{name}', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', name)
            ip('link', 'set', f'to-{name}', 'master', 'fleet', 'up')
            for words in (('address', 'add', f'10.77.0.{number + 2}/24', 'dev', 'eth0'), ('link', 'set', 'eth0', 'up'),
                          ('link', 'set', 'lo', 'up')):
                ip('-n', name, *words)

    def inside(self, name):
        """What a command begins with that is to run at a host."""
        return ['ip', 'netns', 'exec', name]

    def cut(self, name, is_cut=True):
        ip('link', 'set', f'to-{name}', 'down' if is_cut else 'up')

    def close(self):
        for name in self.names:
            subprocess.run(['ip', 'netns', 'delete', name], check=False, capture_output=True)
        subprocess.run(['ip', 'link', 'delete', 'fleet'], check=False, capture_output=True)
