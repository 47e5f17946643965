#!/usr/bin/env python3
"""Sends the packets of a JSON list, several times: `send.py FILE ROUNDS`.

Each packet is {"id", "way", "source", "target", "protocol", "ports", "device", "mac", "headers", "cut", "user"}:

  way       socket (a UDP socket bound to source and port), raw (IP header of our own), frame (Ethernet frame of our own)
  ports     source and destination port; those of the protocols that have some
  device    SO_BINDTODEVICE of a socket, or the device of a frame
  mac       the Ethernet destination of a frame
  headers   IPv6 extension headers before the upper layer: hop, destination, routing
  cut       whole; first, later (that fragment alone); big (4,000 octets, left to the kernel to cut)
  user      run as this user id, after the socket has been made where only root may make it

The id is repeated through all of the payload, so that every fragment carries it. What the kernel refuses to send is
printed, and is no error: whether it leaves the machine is for the capture to say.
"""

import json
import os
import socket
import struct
import sys
import time

HEADERS = {"hop": 0, "routing": 43, "destination": 60}
FRAGMENT = 44
PAUSE = 0.05  # seconds between two rounds
SOL_SOCKET, SO_BINDTODEVICE, IPV6_HDRINCL = socket.SOL_SOCKET, 25, 36


def checksum(octets):
    octets += b"\0" * (len(octets) % 2)
    total = sum(struct.unpack(f"!{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def fragment_id(packet):
    """One of its own for each packet: otherwise the kernel reassembles fragments of two."""
    return int(packet["id"][2:], 16) & 0xFFFF


def family_of(packet):
    return socket.AF_INET6 if ":" in packet["source"] else socket.AF_INET


def payload(packet):
    mark = packet["id"].encode()
    size = 4000 if packet["cut"] == "big" else 64
    return (mark * (size // len(mark) + 1))[:size]


def upper_layer(packet):
    source, target = packet["ports"]
    data = payload(packet)
    protocol = packet["protocol"]
    if protocol in (17, 136):
        return struct.pack("!HHHH", source, target, 8 + len(data), 0 if family_of(packet) == socket.AF_INET else 1) + data
    if protocol == 6:
        return struct.pack("!HHIIBBHHH", source, target, 1, 0, 5 << 4, 2, 8192, 0, 0) + data
    if protocol in (1, 58):
        head = struct.pack("!BBHHH", 8 if protocol == 1 else 128, 0, 0, 7, 7)
        return head[:2] + struct.pack("!H", checksum(head + data)) + head[4:] + data
    if protocol == 132:
        return struct.pack("!HHII", source, target, 0, 0) + data
    return data


def ipv4(packet):
    body = upper_layer(packet)
    flags = {"first": 0x2000, "later": 0x0005}.get(packet["cut"], 0)
    if packet["cut"] == "later":
        body = payload(packet)
    body = body[:72] if flags else body
    addresses = socket.inet_aton(packet["source"]) + socket.inet_aton(packet["target"])
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), fragment_id(packet), flags, 64, packet["protocol"], 0) + addresses
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def ipv6(packet):
    body, protocol = upper_layer(packet), packet["protocol"]
    if packet["cut"] in ("first", "later"):
        body = body if packet["cut"] == "first" else payload(packet)
        body = body[: len(body) // 8 * 8]
        # The offset counts 8 octets from bit 3 on; bit 0 says that more follow (RFC 8200 §4.5).
        offset = 1 if packet["cut"] == "first" else 10 << 3
        body, protocol = struct.pack("!BBHI", protocol, 0, offset, fragment_id(packet)) + body, FRAGMENT
    for name in reversed(packet["headers"]):
        # Hop-by-hop and destination options hold a PadN; the routing header has no segment left.
        header = struct.pack("!BBBB4x", protocol, 0, 4, 0) if name == "routing" else struct.pack("!BBBB4x", protocol, 0, 1, 4)
        body, protocol = header + body, HEADERS[name]
    addresses = socket.inet_pton(socket.AF_INET6, packet["source"]) + socket.inet_pton(socket.AF_INET6, packet["target"])
    return struct.pack("!IHBB", 6 << 28, len(body), protocol, 64) + addresses + body


def ip_packet(packet):
    return ipv4(packet) if family_of(packet) == socket.AF_INET else ipv6(packet)


def send_socket(packet):
    family = family_of(packet)
    with socket.socket(family, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if packet["device"]:
            s.setsockopt(SOL_SOCKET, SO_BINDTODEVICE, packet["device"].encode())
            if family == socket.AF_INET6:
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.if_nametoindex(packet["device"]))
        s.bind((packet["source"], packet["ports"][0]))
        s.sendto(payload(packet), (packet["target"], packet["ports"][1]))


def send_raw(packet):
    family = family_of(packet)
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as s:
        if family == socket.AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, IPV6_HDRINCL, 1)
        if packet["device"]:
            s.setsockopt(SOL_SOCKET, SO_BINDTODEVICE, packet["device"].encode())
        s.sendto(ip_packet(packet), (packet["target"], 0))


def send_frame(packet):
    ethertype = 0x0800 if family_of(packet) == socket.AF_INET else 0x86DD
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
        s.bind((packet["device"], 0))
        target, own = bytes.fromhex(packet["mac"].replace(":", "")), s.getsockname()[4]
        s.send(target + own + struct.pack("!H", ethertype) + ip_packet(packet))


WAYS = {"socket": send_socket, "raw": send_raw, "frame": send_frame}


def send(packet):
    try:
        WAYS[packet["way"]](packet)
    except OSError as error:
        print(packet["id"], error)


def main():
    packets, rounds = json.load(open(sys.argv[1])), int(sys.argv[2])
    users = sorted({packet["user"] for packet in packets if packet["user"]})
    for turn in range(rounds):
        if turn:
            time.sleep(PAUSE)
        for packet in packets:
            if not packet["user"]:
                send(packet)
        for user in users:
            if os.fork() == 0:
                os.setuid(user)
                for packet in packets:
                    if packet["user"] == user:
                        send(packet)
                os._exit(0)
            os.wait()


main()
