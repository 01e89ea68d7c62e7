"""A server that asks for a name, which may be seen, and for a code, which may not. Arguments: host key, authorized_keys (not used)."""

import asyncio
import sys

import asyncssh


class Server(asyncssh.SSHServer):
    def connection_made(self, conn):
        conn.send_auth_banner("Property of the lab\r\n")

    def kbdint_auth_supported(self):
        return True

    def get_kbdint_challenge(self, username, lang, submethods):
        return "", "Two things", "", [("Name: ", True), ("Code: ", False)]

    def validate_kbdint_response(self, username, responses):
        return list(responses) == ["nobody", "secret"]


async def main():
    server = await asyncssh.listen(
        "127.0.0.1", 0, server_factory=Server, server_host_keys=[sys.argv[1]]
    )
    print(server.get_port(), flush=True)
    await server.wait_closed()


asyncio.run(main())
