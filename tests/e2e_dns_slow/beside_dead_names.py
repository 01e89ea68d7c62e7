"""What others get while names are looked up that nobody answers for: prints JSON, times in milliseconds.

beside_dead_names.py ADDRESS FOUND NEW DEAD...: an echo by ADDRESS and one by the name FOUND go on, and connections to both are
opened, while every DEAD is connected to; once to NEW, too, a name that was not asked for before.
"""

import json
import socket
import sys
import threading
import time

ECHO = 7
PATIENCE = 40


def since(began):
    return round(1000 * (time.monotonic() - began))


def opened(host):
    """How long it takes to connect, and how that ends."""
    began = time.monotonic()
    try:
        socket.create_connection((host, ECHO), PATIENCE).close()
        return since(began), "open"
    except OSError as error:
        return since(began), error.strerror or str(error)


def echo(stream):
    began = time.monotonic()
    stream.sendall(b"x")
    assert stream.recv(1) == b"x"
    return since(began)


def main():
    address, found, new, *dead = sys.argv[1:]
    streams = {host: socket.create_connection((host, ECHO), PATIENCE) for host in (address, found)}
    # Asked for again.
    result = {"before": opened(found), "dead": {}}

    def fail(name):
        result["dead"][name] = opened(name)

    def once():
        result["new"] = opened(new)

    failing = [threading.Thread(target=fail, args=(name,)) for name in dead]
    for thread in failing:
        thread.start()
    # They are under way, as far as they are to be.
    failing[0].join(1.0)
    beside = threading.Thread(target=once)
    beside.start()
    for what in ("echo", "open"):
        result[what] = {address: 0, found: 0}
    rounds = 0
    while any(thread.is_alive() for thread in failing):
        for host, stream in streams.items():
            result["echo"][host] = max(result["echo"][host], echo(stream))
            took, how = opened(host)
            assert how == "open", how
            result["open"][host] = max(result["open"][host], took)
        rounds += 1
        failing[0].join(0.05)
    beside.join()
    result["rounds"] = rounds
    result["again"] = opened(dead[0])
    print(json.dumps(result))


main()
