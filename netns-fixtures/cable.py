"""A tunnel without SSH: holds a TUN or TAP device in each of two network namespaces, as sshd does, and carries packets.

cable.py KIND NETNS DEVICE NETNS DEVICE [UID]: the first device is opened as UID, as sshd does after the login.
"""

import ctypes
import fcntl
import os
import select
import struct
import sys

CLONE_NEWNET = 0x40000000
TUNSETIFF = 0x400454CA
FLAGS = {"tun": 0x1001, "tap": 0x1002}  # IFF_NO_PI with IFF_TUN or IFF_TAP


def device(kind, netns, name, uid):
    with open(netns) as there:
        if ctypes.CDLL(None, use_errno=True).setns(there.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), netns)
    opened = os.open("/dev/net/tun", os.O_RDWR)
    os.seteuid(uid)
    fcntl.ioctl(opened, TUNSETIFF, struct.pack("16sH22x", name.encode(), FLAGS[kind]))
    os.seteuid(0)
    return opened


def carry(source, to):
    packet = os.read(source, 65536)
    try:
        os.write(to, packet)
    except OSError:
        pass  # The device is down.


def main():
    kind, far_netns, far_name, netns, name = sys.argv[1:6]
    far = device(kind, far_netns, far_name, int(sys.argv[6]) if sys.argv[6:] else 0)
    near = device(kind, netns, name, 0)
    print("held", flush=True)
    other = {far: near, near: far}
    while True:
        for ready in select.select([far, near], [], [])[0]:
            try:
                carry(ready, other[ready])
            except OSError:
                return  # The device is gone.


main()
