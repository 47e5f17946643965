#!/usr/bin/python3
"""Scapy as an oracle for ESP that Pollux did not write (Debian: python3-scapy).

  esp.py verify CAPTURE JOB.json       authenticate and decrypt every ESP packet of the capture
  esp.py send IFACE MAC JOB.json       make ESP packets of every payload length and send them
  esp.py pattern SOURCE DESTINATION FROM TO   send plain UDP datagrams of these payload lengths

JOB.json is a list of SAs: {"spi", "suite", "key" (hex, salt at its end), "esn", "encap",
"outer": [source, destination], "inner": [source, destination], "from", "to"}.
Every UDP payload of length n follows one pattern, so that each end can tell whether it is whole.
Prints one JSON object.
"""
import json
import logging
import multiprocessing
import os
import socket
import sys
import time

logging.getLogger("scapy").setLevel(logging.ERROR)
# pylint: disable=wrong-import-position
from scapy.layers.inet import IP, UDP  # noqa: E402
from scapy.layers.inet6 import IPv6  # noqa: E402
from scapy.layers.ipsec import ESP, SecurityAssociation  # noqa: E402
from scapy.layers.l2 import Ether  # noqa: E402
from scapy.packet import Raw, raw  # noqa: E402
from scapy.utils import RawPcapReader, checksum  # noqa: E402

SUITES = {"aes128gcm16": "AES-GCM", "aes256gcm16": "AES-GCM", "chacha20poly1305": "CHACHA20-POLY1305"}
PORTS = (40000, 40001)


def pattern(length):
    """The payload of this length."""
    return bytes((i * 31 + length) & 0xFF for i in range(length))


def ip_class(address):
    """Scapy's header class for an address."""
    return IPv6 if ":" in address else IP


def association(sa):
    """Scapy's SA for one of the job's."""
    outer = ip_class(sa["outer"][0])(src=sa["outer"][0], dst=sa["outer"][1])
    nat_t = UDP(sport=4500, dport=4500, chksum=0) if sa["encap"] and isinstance(outer, IP) else None
    return SecurityAssociation(
        ESP,
        spi=sa["spi"],
        crypt_algo=SUITES[sa["suite"]],
        crypt_key=bytes.fromhex(sa["key"]),
        tunnel_header=outer,
        nat_t_header=nat_t,
        esn_en=sa["esn"],
        esn=sa.get("esn_high", 0),
    )


def esp_of(frame):
    """(SPI, packet that holds bare ESP, whether it came in UDP), or None."""
    ip = frame.getlayer(IP) or frame.getlayer(IPv6)
    if ip is None:
        return None
    proto = ip.proto if isinstance(ip, IP) else ip.nh
    payload = raw(ip.payload)
    encapsulated = False
    if proto == 17 and 4500 in (ip.payload.sport, ip.payload.dport):
        payload, encapsulated = payload[8:], True
    elif proto != 50:
        return None
    if len(payload) < 8 or payload[:4] == bytes(4):
        return None
    if isinstance(ip, IP):
        bare = IP(src=ip.src, dst=ip.dst, proto=50, tos=ip.tos, id=ip.id, ttl=ip.ttl) / ESP(payload)
    else:
        bare = IPv6(src=ip.src, dst=ip.dst, nh=50, hlim=ip.hlim) / ESP(payload)
    return int.from_bytes(payload[:4], "big"), bare, encapsulated


def udp_checksum_holds(ip):
    """Whether the inner UDP checksum is right; 0 is none over IPv4."""
    if ip[UDP].chksum == 0:
        return isinstance(ip, IP)
    again = ip.__class__(raw(ip))
    del again[UDP].chksum
    return ip.__class__(raw(again))[UDP].chksum == ip[UDP].chksum


def fault(inner, sa):
    """What is wrong with a decrypted packet, or None."""
    cls = ip_class(sa["inner"][0])
    if not isinstance(inner, cls):
        return "IP version"
    if [inner.src, inner.dst] != sa["inner"]:
        return "addresses"
    if cls is IP:
        header = raw(inner)[: inner.ihl * 4]
        if checksum(header) != 0:
            return "header checksum"
    if UDP not in inner:
        return "no UDP"
    data = raw(inner[UDP].payload)
    if data != pattern(len(data)):
        return "payload"
    return None if udp_checksum_holds(inner) else "UDP checksum"


def judge(frames, job):
    """Decrypts these frames; what was right and what was wrong, by SPI."""
    sas = {sa["spi"]: sa for sa in job}
    made = {spi: association(sa) for spi, sa in sas.items()}
    result = {spi: {"good": 0, "bad": [], "lengths": set(), "sequence": set()} for spi in sas}
    for frame in frames:
        found = esp_of(Ether(frame))
        if found is None or found[0] not in sas:
            continue
        spi, bare, encapsulated = found
        sa, row = sas[spi], result[spi]
        sequence = bare[ESP].seq
        try:
            inner = made[spi].decrypt(bare, verify=True, esn_en=sa["esn"], esn=sa.get("esn_high", 0))
            why = fault(inner, sa) or (None if encapsulated == sa["encap"] else "encapsulation")
        except Exception as error:  # pylint: disable=broad-except
            why = repr(error)
        if why is None:
            row["good"] += 1
            row["lengths"].add(len(raw(inner[UDP].payload)))
            row["sequence"].add(sequence)
        else:
            row["bad"].append([sequence, why])
    return result


def on_every_core(function, tasks):
    """The function's answers to the tasks, in their order: scapy takes about a millisecond for each packet."""
    with multiprocessing.Pool(min(os.cpu_count(), len(tasks))) as pool:
        return pool.starmap(function, tasks)


def verify(capture, job):
    """Decrypts a capture; counts by SPI."""
    frames = [frame for frame, _ in RawPcapReader(capture)]
    share = len(frames) // os.cpu_count() + 1
    parts = [frames[at : at + share] for at in range(0, len(frames), share)]
    rows = {sa["spi"]: {"good": 0, "bad": [], "lengths": set(), "sequence": set()} for sa in job}
    for part in on_every_core(judge, [(part, job) for part in parts]) if parts else []:
        for spi, found in part.items():
            rows[spi]["good"] += found["good"]
            rows[spi]["bad"] += found["bad"]
            rows[spi]["lengths"] |= found["lengths"]
            rows[spi]["sequence"] |= found["sequence"]
    return {
        f"0x{spi:08x}": {
            "good": row["good"],
            "bad": row["bad"][:5],
            "lengths": len(row["lengths"]),
            "distinct_sequence_numbers": len(row["sequence"]),
        }
        for spi, row in rows.items()
    }


def make(sa):
    """One ESP packet of every payload length, as they go on the wire behind the link header, and their ethertype."""
    made, packets = association(sa), []
    for sequence, length in enumerate(range(sa["from"], sa["to"] + 1), 1):
        cls = ip_class(sa["inner"][0])
        inner = cls(src=sa["inner"][0], dst=sa["inner"][1]) / UDP(sport=PORTS[0], dport=PORTS[1]) / Raw(pattern(length))
        inner = cls(raw(inner))
        packet = made.encrypt(inner, seq_num=sequence, esn_en=sa["esn"], esn=sa.get("esn_high", 0))
        if sa["encap"] and isinstance(packet, IPv6):
            esp = raw(packet[ESP])
            packet = IPv6(src=packet.src, dst=packet.dst) / UDP(sport=4500, dport=4500) / Raw(esp)
        elif sa["encap"]:
            # Scapy settles the UDP length before there is a payload.
            del packet[UDP].len
        packets.append(raw(packet))
    return 0x86DD if ":" in sa["outer"][0] else 0x0800, packets


def send(iface, mac, job):
    """Makes ESP packets and sends them, a little paced."""
    out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    out.bind((iface, 0))
    source = open(f"/sys/class/net/{iface}/address", encoding="ascii").read().strip()
    sent = 0
    for ethertype, packets in on_every_core(make, [(sa,) for sa in job]):
        header = raw(Ether(dst=mac, src=source, type=ethertype))
        for packet in packets:
            out.send(header + packet)
            sent += 1
            if sent % 32 == 0:
                time.sleep(0.002)
    return {"sent": sent}


def send_pattern(source, destination, first, last):
    """Plain datagrams through the kernel."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    out = socket.socket(family, socket.SOCK_DGRAM)
    out.bind((source, PORTS[0]))
    for length in range(first, last + 1):
        out.sendto(pattern(length), (destination, PORTS[1]))
        if length % 32 == 0:
            time.sleep(0.002)
    return {"sent": last - first + 1}


def main():
    """The command line."""
    verb, *rest = sys.argv[1:] or ["help"]
    if verb == "verify" and len(rest) == 2:
        answer = verify(rest[0], json.load(open(rest[1], encoding="utf-8")))
    elif verb == "send" and len(rest) == 3:
        answer = send(rest[0], rest[1], json.load(open(rest[2], encoding="utf-8")))
    elif verb == "pattern" and len(rest) == 4:
        answer = send_pattern(rest[0], rest[1], int(rest[2]), int(rest[3]))
    else:
        sys.exit(__doc__)
    print(json.dumps(answer))


main()
