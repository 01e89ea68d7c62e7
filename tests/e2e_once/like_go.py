"""Asks as a program does that reads resolv.conf itself: like_go.py NAME."""

import os
import re
import socket
import struct
import sys


def main():
    with open("/etc/resolv.conf") as conf:
        servers = re.findall(r"^nameserver\s+(\S+)", conf.read(), re.M)
    labels = sys.argv[1].rstrip(".").split(".")
    name = b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"
    number = os.urandom(2)
    question = number + struct.pack("!5H", 0x0100, 1, 0, 0, 0) + name + struct.pack("!2H", 1, 1)
    asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    asker.settimeout(5)
    asker.sendto(question, (servers[0], 53))
    answer = asker.recv(4096)
    assert answer[:2] == number, answer
    # The last record's data; there is no additional section without EDNS.
    count = struct.unpack("!H", answer[6:8])[0]
    print("like-go", socket.inet_ntoa(answer[-4:]) if count else "nothing")


main()
