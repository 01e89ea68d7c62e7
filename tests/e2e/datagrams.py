"""Datagrams: `serve ADDRESS PORT` sends each back; `ask ADDRESS PORT LENGTH...` says what becomes of some."""

import socket
import sys


def opened(address):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.socket(family, socket.SOCK_DGRAM)


def serve(address, port):
    sock = opened(address)
    sock.bind((address, port))
    print("ready", flush=True)
    while True:
        data, sender = sock.recvfrom(65535)
        sock.sendto(data, sender)


def ask(address, port, lengths):
    sock = opened(address)
    sock.settimeout(3)
    sock.connect((address, port))
    for length in lengths:
        sent = bytes(number % 251 for number in range(length))
        try:
            sock.send(sent)
            heard = sock.recv(65535)
            print(length, "same" if heard == sent else "other")
        except TimeoutError:
            print(length, "silence")
        except OSError as error:
            print(length, error.strerror)


verb, address, port, *lengths = sys.argv[1:]
if verb == "serve":
    serve(address, int(port))
else:
    ask(address, int(port), [int(length) for length in lengths])
