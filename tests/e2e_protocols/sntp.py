"""SNTP (RFC 4330): `serve ADDRESS` answers at port 123; `ask ADDRESS` prints the clocks' offset and the way's delay."""

import socket
import struct
import sys
import time

# Leap and version and mode, stratum, poll, precision; delay, dispersion, name; four time stamps.
PACKET = struct.Struct(">BBbb11I")
SINCE_1900 = 2208988800
CLIENT, SERVER = 4 << 3 | 3, 4 << 3 | 4


def stamp():
    seconds, rest = divmod(time.time_ns(), 10**9)
    return seconds + SINCE_1900, (rest << 32) // 10**9


def seconds(whole, fraction):
    return whole - SINCE_1900 + fraction / 2**32


def opened(address):
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)


def serve(address):
    sock = opened(address)
    sock.bind((address, 123))
    print("ready", flush=True)
    while True:
        request, sender = sock.recvfrom(512)
        received = stamp()
        sent_at = PACKET.unpack(request)[-2:]
        sock.sendto(PACKET.pack(SERVER, 1, 6, -20, 0, 0, 0, *received, *sent_at, *received, *stamp()), sender)


def ask(address):
    sock = opened(address)
    sock.settimeout(5)
    sock.connect((address, 123))
    originated = stamp()
    sock.send(PACKET.pack(CLIENT, 0, 0, 0, *[0] * 9, *originated))
    answer = PACKET.unpack(sock.recv(512))
    back = seconds(*stamp())
    assert answer[0] == SERVER and answer[9:11] == originated, answer
    there, received, sent = (seconds(*answer[at:at + 2]) for at in (9, 11, 13))
    print(((received - there) + (sent - back)) / 2, (back - there) - (sent - received))


verb, address = sys.argv[1:]
serve(address) if verb == "serve" else ask(address)
