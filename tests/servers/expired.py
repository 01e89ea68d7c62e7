"""A server at which every password has expired. Arguments: host key, authorized_keys (not used)."""

import asyncio
import sys

import asyncssh


class Server(asyncssh.SSHServer):
    def __init__(self):
        self.password = "open sesame"

    def password_auth_supported(self):
        return True

    def validate_password(self, username, password):
        if password != self.password:
            return False
        if self.password == "open sesame":
            raise asyncssh.PasswordChangeRequired("Your password has expired.")
        return True

    def change_password(self, username, old_password, new_password):
        self.password = new_password
        return old_password == "open sesame"

    def connection_requested(self, dest_host, dest_port, orig_host, orig_port):
        return True


async def main():
    server = await asyncssh.listen(
        "127.0.0.1",
        0,
        server_factory=Server,
        server_host_keys=[sys.argv[1]],
        kbdint_auth=False,
    )
    print(server.get_port(), flush=True)
    await server.wait_closed()


asyncio.run(main())
