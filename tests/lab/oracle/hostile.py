#!/usr/bin/python3
"""Makes ESP packets that must be dropped, each for one reason, and sends them (Debian: python3-scapy).

  hostile.py IFACE MAC JOB.json CLASS FIRST_SEQUENCE

JOB.json holds one AES-GCM SA as esp.py has it. Prints {"sent": N, "valid": M}: M of the packets are right and
only prepare the ground (the first of a replayed pair, for example).
"""
import json
import random
import socket
import struct
import sys
import time

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Raw, raw


class Sa:
    """An SA that seals whatever it is given, right or wrong."""

    def __init__(self, job):
        self.job = job
        material = bytes.fromhex(job["key"])
        self.cipher, self.salt = AESGCM(material[:-4]), material[-4:]

    def seal(self, sequence, plaintext):
        """An ESP packet over a finished plaintext, trailer included."""
        head = struct.pack("!II", self.job["spi"], sequence)
        iv = struct.pack("!Q", sequence)
        return head + iv + self.cipher.encrypt(self.salt + iv, plaintext, head)

    def packet(self, esp):
        """The outer packet around ESP."""
        source, destination = self.job["outer"]
        return raw(IP(src=source, dst=destination, proto=50) / Raw(esp))

    def inner(self, **change):
        """An inner packet inside the selectors, but for the change."""
        source, destination = self.job["inner"]
        fields = {"src": source, "dst": destination, **change}
        return raw(IP(**fields) / UDP(sport=40000, dport=40001) / Raw(b"hostile"))


def trailer(inner, next_header=4, pad_len=None, wrong=False):
    """Inner packet, padding 1, 2, 3 …, pad length, next header."""
    need = -(len(inner) + 2) % 4
    padding = bytes(range(1, need + 1))
    if wrong:
        padding = bytes([1, 2, 9, 4, 5, 6, 7])[: need + 4] if need else bytes([1, 2, 9, 4])
        need = len(padding)
    return inner + padding + bytes([need if pad_len is None else pad_len, next_header])


def right(sa, sequence):
    """A packet with nothing wrong."""
    return sa.seal(sequence, trailer(sa.inner()))


def replayed(sa, first):
    """Each packet twice."""
    return [right(sa, first + n // 2) for n in range(160)], 80


def too_old(sa, first):
    """One far ahead, then many from before the window."""
    return [right(sa, first + 5000)] + [right(sa, first + n) for n in range(10)], 1


def bad_icv(sa, first):
    """Every bit of the ICV, and some of the rest, flipped once."""
    packets = []
    for bit in range(128):
        esp = bytearray(right(sa, first))
        esp[-1 - bit // 8] ^= 1 << bit % 8
        packets.append(bytes(esp))
    return packets, 0


def unknown_spi(sa, first):
    """SPIs that nobody has."""
    return [struct.pack("!II", 0xC0000000 + n * 7919, first) + bytes(64) for n in range(10)], 0


def truncated(sa, first):
    """Cut at every length from the sequence number on; the last octet missing is a wrong ICV."""
    esp = right(sa, first)
    return [esp[:length] for length in range(8, len(esp))], 0


def pad_too_long(sa, first):
    """Padding that would reach before the packet."""
    return [sa.seal(first + n, trailer(sa.inner(), pad_len=255)) for n in range(10)], 0


def pad_wrong(sa, first):
    """Padding that is not 1, 2, 3 …"""
    return [sa.seal(first + n, trailer(sa.inner(), wrong=True)) for n in range(10)], 0


def next_header(sa, first):
    """Protocols that tunnel mode does not carry."""
    protocols = [number for number in range(256) if number not in (4, 41, 59)]
    return [sa.seal(first + n, trailer(sa.inner(), next_header=p)) for n, p in enumerate(protocols)], 0


def selectors(sa, first):
    """Inner packets outside the SA's selectors."""
    return [sa.seal(first + n, trailer(sa.inner(src=f"10.99.0.{n + 1}"))) for n in range(10)], 0


def version(sa, first):
    """Inner packets of another version than next header says."""
    six = raw(IPv6(src="fd01::10", dst="fd02::10") / UDP(sport=1, dport=2) / Raw(b"hostile"))
    packets = [sa.seal(first, trailer(six, next_header=4)), sa.seal(first + 1, trailer(sa.inner(), next_header=41))]
    return packets, 0


def inner_length(sa, first):
    """Inner packets that are cut short or claim to be longer than they are."""
    whole = sa.inner()
    packets = [sa.seal(first + n, trailer(whole[:n])) for n in range(1, len(whole))]
    return packets, 0


def dummy(sa, first):
    """Dummy packets (RFC 4303 section 2.6)."""
    return [sa.seal(first + n, trailer(bytes(40), next_header=59)) for n in range(10)], 0


def noise(sa, _):
    """ESP of random octets."""
    source = random.Random(1)
    return [struct.pack("!I", sa.job["spi"]) + source.randbytes(source.randrange(4, 1400)) for _ in range(5000)], 0


CLASSES = {
    function.__name__: function
    for function in (
        replayed,
        too_old,
        bad_icv,
        unknown_spi,
        truncated,
        pad_too_long,
        pad_wrong,
        next_header,
        selectors,
        version,
        inner_length,
        dummy,
        noise,
    )
}


def main():
    """The command line."""
    if len(sys.argv) != 6 or sys.argv[4] not in CLASSES:
        sys.exit(__doc__ + "\nCLASS is one of: " + ", ".join(CLASSES))
    iface, mac, job, name, first = sys.argv[1:]
    with open(job, encoding="utf-8") as file:
        sa = Sa(json.load(file)[0])
    packets, valid = CLASSES[name](sa, int(first))
    out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    out.bind((iface, 0))
    header = raw(Ether(dst=mac, src="02:00:00:00:00:01", type=0x0800))
    for number, esp in enumerate(packets, 1):
        out.send(header + sa.packet(esp))
        if number % 32 == 0:
            time.sleep(0.003)
    print(json.dumps({"sent": len(packets), "valid": valid}))


main()
