"""Writes down the names in packets to port 53 that leave by an interface: capture.py INTERFACE FILE."""

import socket
import struct
import sys

OUTGOING = 4  # PACKET_OUTGOING of packet(7)


def printable(payload):
    return "".join(chr(byte) if 33 <= byte < 127 else "." for byte in payload)


def main():
    interface, path = sys.argv[1:]
    every = socket.ntohs(3)  # ETH_P_ALL
    sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, every)
    sniffer.bind((interface, 3))
    with open(path, "w", buffering=1) as log:
        while True:
            packet, address = sniffer.recvfrom(65535)
            if address[2] != OUTGOING or not packet:
                continue
            if packet[0] >> 4 == 4:
                protocol, body = packet[9], packet[(packet[0] & 15) * 4 :]
            else:
                protocol, body = packet[6], packet[40:]
            if protocol in (6, 17) and struct.unpack("!H", body[2:4])[0] == 53:
                log.write(printable(body[8:]).lower() + "\n")


main()
