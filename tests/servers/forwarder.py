"""An ordinary server: asyncssh forwards whatever is asked for. Arguments: host key, authorized_keys."""

import asyncio
import sys

import asyncssh


class Server(asyncssh.SSHServer):
    def connection_requested(self, dest_host, dest_port, orig_host, orig_port):
        return True


async def main():
    host_key, authorized_keys = sys.argv[1:]
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=Server,
        server_host_keys=[host_key],
        authorized_client_keys=authorized_keys,
    )
    print(server.get_port(), flush=True)
    await server.wait_closed()


asyncio.run(main())
