"""A server that logs in whoever asks with a key it knows, and then lies.

Arguments: host key, authorized_keys. Prints its port and the names of its lies. A `direct-tcpip` channel to port N
of whatever host, from 1, tells the Nth lie of LIES, any other port is forwarded honestly. A user whose name is in
LOGIN_LIES is lied to while logging in.
"""

import asyncio
import sys

import asyncssh
from asyncssh import connection
from asyncssh.constants import *
from asyncssh.packet import Boolean, Byte, NameList, String, UInt32

HONEST_WINDOW = 2 << 20
HONEST_PACKET = 32 << 10
NOBODY = 4242
CHUNK = bytes(32 << 10)

LIES = {}
LOGIN_LIES = {}


def lie(function):
    LIES[function.__name__] = function
    return function


def login_lie(function):
    LOGIN_LIES[function.__name__] = function
    return function


class Liar:
    """The server's end of one channel, message by message."""

    def __init__(self, conn, number, sender):
        self.conn, self.number, self.sender = conn, number, sender

    # What asyncssh asks of a channel.
    def log_received_packet(self, *_):
        pass

    def process_packet(self, *_):
        return True

    def process_connection_close(self, _):
        pass

    def send(self, kind, *fields):
        self.conn.send_packet(kind, *fields)

    def confirm(self, window=HONEST_WINDOW, packet=HONEST_PACKET):
        self.send(MSG_CHANNEL_OPEN_CONFIRMATION, UInt32(self.sender), UInt32(self.number), UInt32(window), UInt32(packet))

    def refuse(self, reason, text, language=b""):
        self.send(MSG_CHANNEL_OPEN_FAILURE, UInt32(self.sender), UInt32(reason), String(text), String(language))

    def data(self, data, to=None):
        self.send(MSG_CHANNEL_DATA, UInt32(self.sender if to is None else to), String(data))

    def adjust(self, more):
        self.send(MSG_CHANNEL_WINDOW_ADJUST, UInt32(self.sender), UInt32(more))

    def eof(self):
        self.send(MSG_CHANNEL_EOF, UInt32(self.sender))

    def close(self):
        self.send(MSG_CHANNEL_CLOSE, UInt32(self.sender))

    async def flood(self, messages, kind, *fields):
        """Many messages, as fast as they are taken."""
        for _ in range(messages):
            self.send(kind, *fields)
            while self.conn._transport and self.conn._transport.get_write_buffer_size() > 1 << 20:
                await asyncio.sleep(0.001)

    def raw(self, data):
        """Bytes under the encryption."""
        self.conn._transport.write(data)


async def tell(liar, lie):
    """A lie between two truths, unless it begins with the answer to the open itself."""
    if not lie.__name__.startswith("open_"):
        liar.confirm()
        liar.data(b"before ")
    if lie.__name__.startswith("end_"):
        # Nothing tells when the client has read that, and an end may overtake what was not.
        await asyncio.sleep(0.05)
    result = lie(liar)
    if asyncio.iscoroutine(result):
        await result
    if not lie.__name__.startswith(("open_refused", "end_")):
        liar.data(b"after")
        liar.eof()
        liar.close()


# The answer to an open.


@lie
def open_refused_in_latin1(liar):
    liar.refuse(2, "refusé".encode("latin1"))


@lie
def open_refused_with_a_book(liar):
    liar.refuse(2, b"Connection refused\x1b[31m" + b"x" * 200_000)


@lie
def open_refused_for_no_known_reason(liar):
    liar.refuse(77, b"because")


@lie
def open_refused_in_half_a_message(liar):
    liar.send(MSG_CHANNEL_OPEN_FAILURE, UInt32(liar.sender), UInt32(2), UInt32(1000), b"cut")


@lie
def open_refused_twice(liar):
    liar.refuse(2, b"Connection refused")
    liar.refuse(2, b"No route to host")


@lie
def open_refused_for_nobody_first(liar):
    liar.sender, sender = NOBODY, liar.sender
    liar.refuse(2, b"No route to host")
    liar.sender = sender
    liar.refuse(2, b"Connection refused")


@lie
def open_confirmed_twice(liar):
    liar.confirm()
    liar.confirm()


@lie
def open_confirmed_and_refused(liar):
    liar.confirm()
    liar.refuse(2, b"Connection refused")


@lie
def open_confirmed_for_nobody_first(liar):
    liar.sender, sender = NOBODY, liar.sender
    liar.confirm()
    liar.sender = sender
    liar.confirm()


@lie
def open_after_data(liar):
    liar.data(b"early ")
    liar.confirm()


@lie
def open_with_packets_of_nothing(liar):
    liar.confirm(packet=0)


@lie
def open_without_bounds(liar):
    liar.confirm(window=0xFFFFFFFF, packet=0xFFFFFFFF)


@lie
def open_confirmed_in_half_a_message(liar):
    liar.send(MSG_CHANNEL_OPEN_CONFIRMATION, UInt32(liar.sender), b"\0")


# Wrong numbers.


@lie
def data_for_nobody(liar):
    liar.data(b"?", to=NOBODY)
    liar.data(b"?", to=0xFFFFFFFF)


@lie
def an_end_for_nobody(liar):
    for kind in (MSG_CHANNEL_EOF, MSG_CHANNEL_CLOSE, MSG_CHANNEL_SUCCESS, MSG_CHANNEL_FAILURE):
        liar.send(kind, UInt32(NOBODY))


@lie
def window_for_nobody(liar):
    liar.send(MSG_CHANNEL_WINDOW_ADJUST, UInt32(NOBODY), UInt32(1))


@lie
def a_request_for_nobody(liar):
    liar.send(MSG_CHANNEL_REQUEST, UInt32(NOBODY), String("exit-status"), Boolean(True), UInt32(0))


# After the end.


@lie
def data_after_eof(liar):
    liar.eof()
    liar.data(b"late")


@lie
def data_after_close(liar):
    liar.close()
    liar.data(b"late")


@lie
def closed_twice(liar):
    liar.close()
    liar.close()


@lie
def window_after_close(liar):
    liar.close()
    liar.adjust(1 << 20)


# Too much.


@lie
async def more_than_the_window(liar):
    await liar.flood(512, MSG_CHANNEL_DATA, UInt32(liar.sender), String(CHUNK))


@lie
def more_than_a_packet(liar):
    liar.data(bytes(100_000))


@lie
def end_with_more_than_any_packet(liar):
    liar.data(bytes(300_000))


@lie
def window_beyond_32_bits(liar):
    for _ in range(3):
        liar.adjust(0xFFFFFFFF)


@lie
async def extended_data(liar):
    await liar.flood(512, MSG_CHANNEL_EXTENDED_DATA, UInt32(liar.sender), UInt32(1), String(CHUNK))


@lie
async def empty_data(liar):
    await liar.flood(2_000, MSG_CHANNEL_DATA, UInt32(liar.sender), String(b""))


@lie
async def empty_ignores(liar):
    await liar.flood(500, MSG_IGNORE, String(CHUNK))


@lie
async def questions(liar):
    # asyncssh ends a connection that answers what it did not ask.
    futures = (asyncio.get_running_loop().create_future() for _ in range(1_000))
    liar.conn._global_request_waiters.extend(futures)
    await liar.flood(1_000, MSG_GLOBAL_REQUEST, String("keepalive@openssh.com"), Boolean(True))
    await liar.flood(1_000, MSG_CHANNEL_REQUEST, UInt32(liar.sender), String("?"), Boolean(True))


@lie
async def answers_that_nobody_asked_for(liar):
    await liar.flood(1_000, MSG_REQUEST_SUCCESS)
    await liar.flood(1_000, MSG_REQUEST_FAILURE)
    await liar.flood(1_000, MSG_CHANNEL_SUCCESS, UInt32(liar.sender))


@lie
async def channels_that_nobody_asked_for(liar):
    for kind in ("session", "x11", "forwarded-tcpip", "auth-agent@openssh.com", "direct-tcpip", "?" * 1000):
        fields = String("a") + UInt32(1) + String("b") + UInt32(2)
        liar.send(MSG_CHANNEL_OPEN, String(kind), UInt32(7), UInt32(0), UInt32(0), fields)


# Messages that make no sense here.


@lie
def half_a_data_message(liar):
    liar.send(MSG_CHANNEL_DATA, UInt32(liar.sender), UInt32(1000), b"cut")


@lie
def a_message_of_no_kind(liar):
    liar.send(200, String("?"))
    liar.send(MSG_UNIMPLEMENTED, UInt32(0))


@lie
def logged_in_again(liar):
    liar.send(MSG_USERAUTH_SUCCESS)
    liar.send(MSG_USERAUTH_FAILURE, NameList([b"publickey"]), Boolean(False))
    liar.send(MSG_USERAUTH_BANNER, String("\x1b[2Jhello"), String(""))


@lie
def keys_that_nobody_asked_for(liar):
    liar.send(MSG_NEWKEYS)


@lie
def half_a_key_exchange(liar):
    liar.send(MSG_KEXINIT, b"cut")


@lie
def a_debug_message_for_the_terminal(liar):
    liar.send(MSG_DEBUG, Boolean(True), String("\x1b[2Jhello"), String(""))


# The end of the connection.


@lie
def end_with_garbage(liar):
    liar.raw(bytes(range(256)) * 1024)


@lie
def end_in_a_packet(liar):
    liar.raw(b"\0\0\1\0cut")
    liar.conn._transport.close()


@lie
def end_with_a_reset(liar):
    liar.conn._transport.abort()


@lie
def end_with_words(liar):
    liar.send(MSG_DISCONNECT, UInt32(11), String("going\x1b[31m\r\n\u202edown" + "!" * 50_000), String(""))


@lie
def end_in_half_a_goodbye(liar):
    liar.send(MSG_DISCONNECT, UInt32(11), UInt32(1000), b"cut")


# While logging in: the user's name chooses.


@login_lie
async def banners(conn):
    for i in range(1_500):
        conn.send_packet(MSG_USERAUTH_BANNER, String("\x1b[2J line\n" * 100), String(""))
        await asyncio.sleep(0)


@login_lie
def unasked_success(conn):
    conn.send_packet(MSG_USERAUTH_SUCCESS)


@login_lie
def goodbye(conn):
    conn.send_packet(MSG_DISCONNECT, UInt32(2), String("Too many\x1b[31m\r\n things"), String(""))


@login_lie
def hang_up(conn):
    conn._transport.abort()


@login_lie
def channel_before_login(conn):
    payload = Byte(MSG_CHANNEL_OPEN) + String("session") + UInt32(0) + UInt32(0) + UInt32(0)
    raw_packet(conn, payload)


@login_lie
def methods_without_end(conn):
    conn.send_packet(MSG_USERAUTH_FAILURE, String(b"publickey," * 20_000 + b"x"), Boolean(True))


@login_lie
async def further_and_further(conn):
    for _ in range(2_000):
        conn.send_packet(MSG_USERAUTH_FAILURE, String(b"publickey,password"), Boolean(True))
        await asyncio.sleep(0)


@login_lie
def half_an_answer(conn):
    conn.send_packet(MSG_USERAUTH_FAILURE, UInt32(1000), b"cut")


def raw_packet(conn, payload):
    """As if the login were over."""
    conn._auth_complete, complete = True, conn._auth_complete
    conn.send_packet(payload[0], payload[1:])
    conn._auth_complete = complete


class Server(asyncssh.SSHServer):
    def connection_made(self, conn):
        self.conn = conn

    async def begin_auth(self, username):
        lie = LOGIN_LIES.get(username)
        if lie:
            result = lie(self.conn)
            if asyncio.iscoroutine(result):
                await result
        return True

    def connection_requested(self, *_):
        return True


honest_open = connection.SSHServerConnection._process_channel_open


def process_channel_open(self, kind, number, packet):
    start = packet._idx
    chantype, sender = packet.get_string(), packet.get_uint32()
    packet.get_uint32(), packet.get_uint32()
    if chantype == b"direct-tcpip":
        packet.get_string()
        port = packet.get_uint32()
        if 1 <= port <= len(LIES):
            ours = 1000 + sender
            liar = Liar(self, ours, sender)
            self._channels[ours] = liar
            self.create_task(tell(liar, list(LIES.values())[port - 1]))
            return
    packet._idx = start
    honest_open(self, kind, number, packet)


connection.SSHServerConnection._process_channel_open = process_channel_open
connection.SSHServerConnection._packet_handlers[MSG_CHANNEL_OPEN] = process_channel_open


async def main():
    host_key, authorized_keys = sys.argv[1:]
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=Server,
        server_host_keys=[host_key],
        authorized_client_keys=authorized_keys,
        login_timeout=0,
    )
    print(server.get_port(), *LIES, flush=True)
    await server.wait_closed()


asyncio.run(main())
