import errno, os, selectors, socket, struct, sys

DATA, ERROR, CLOSE, OPEN = 0, 1, 2, 3
REFUSED, HOST, NETWORK, FILTERED, NO_ROOM, OTHER = 1, 2, 3, 4, 5, 6
CODES = {errno.ECONNREFUSED: REFUSED, errno.EHOSTUNREACH: HOST, errno.EHOSTDOWN: HOST, errno.ENETUNREACH: NETWORK,
         errno.EAFNOSUPPORT: NETWORK, errno.EADDRNOTAVAIL: NETWORK, errno.EACCES: FILTERED, errno.EPERM: FILTERED,
         errno.EMFILE: NO_ROOM, errno.ENFILE: NO_ROOM, errno.ENOBUFS: NO_ROOM, errno.ENOMEM: NO_ROOM}
AGAIN = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR)
# A full queue of the server's takes a datagram, and not the flow.
LOST = AGAIN + (errno.ENOBUFS, errno.ENOMEM)
FULL = 262144
LINUX = sys.platform.startswith("linux")

wait = selectors.DefaultSelector()
flows, heard, said = {}, bytearray(), bytearray(b"underpass-udp-1\n")

def tell(flow, kind, data=b""):
    said.extend(struct.pack(">HIB", len(data), flow, kind) + data)

def tell_error(flow, error):
    tell(flow, ERROR, bytes([CODES.get(error.errno, OTHER)]))

def failed(flow, error):
    if error.errno not in LOST:
        tell_error(flow, error)

def close(flow):
    s = flows.pop(flow, None)
    if s:
        wait.unregister(s)
        s.close()

def open_(flow, host, port):
    close(flow)
    s = None
    try:
        six = ":" in host
        s = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
        s.setblocking(False)
        if LINUX:
            # IPV6_RECVERR, IP_RECVERR: unreachable hosts and networks are heard of, too.
            s.setsockopt(*((41, 25, 1) if six else (0, 11, 1)))
        s.connect((host, port))
        wait.register(s, selectors.EVENT_READ, flow)
        flows[flow] = s
    except OSError as error:
        tell_error(flow, error)
        tell(flow, CLOSE)
        if s:
            s.close()

def send(flow, data):
    s = flows.get(flow)
    # An error of an earlier datagram is told in place of sending: then once more.
    for _ in range(2 if s else 0):
        try:
            return s.send(data)
        except OSError as error:
            failed(flow, error)
            forget_errors(s)

def forget_errors(s):
    while LINUX:
        try:
            s.recvmsg(1, 512, 0x2000)
        except OSError:
            return

def receive(flow, s):
    for _ in range(32):
        try:
            tell(flow, DATA, s.recv(65536))
        except OSError as error:
            failed(flow, error)
            return forget_errors(s)

def hear():
    piece = os.read(0, 65536)
    if not piece:
        sys.exit()
    heard.extend(piece)
    at = 0
    while len(heard) - at >= 7:
        size, flow, kind = struct.unpack_from(">HIB", heard, at)
        if len(heard) - at < 7 + size:
            break
        data = bytes(heard[at + 7:at + 7 + size])
        at += 7 + size
        if kind == DATA:
            send(flow, data)
        elif kind == CLOSE:
            close(flow)
        elif kind == OPEN:
            host, port = data.decode().split(" ")
            open_(flow, host, int(port))
    del heard[:at]

def say():
    try:
        del said[:os.write(1, said[:65536])]
    except OSError as error:
        if error.errno not in AGAIN:
            sys.exit()

os.set_blocking(0, False)
os.set_blocking(1, False)
ends = selectors.SelectSelector()
ends.register(0, selectors.EVENT_READ)
ends.register(1, selectors.EVENT_WRITE)
wait.register(0, selectors.EVENT_READ)
writes = False
while True:
    if said:
        say()
    if bool(said) != writes:
        writes = not writes
        if writes:
            wait.register(1, selectors.EVENT_WRITE)
        else:
            wait.unregister(1)
    # While nobody reads what is said, the sockets' own buffers fill, and drop.
    for key, _ in (ends if len(said) >= FULL else wait).select():
        if key.fd == 0:
            hear()
        elif key.fd != 1 and flows.get(key.data) is key.fileobj:
            receive(key.data, key.fileobj)
