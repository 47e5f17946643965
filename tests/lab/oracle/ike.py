#!/usr/bin/python3
"""An IKEv2 initiator that says what it is told to say, right or wrong (Debian: python3-cryptography).

  ike.py JOB.json

The job: local and remote address, local_id, secret, local_ts and remote_ts as prefixes, and a list of steps, each
{"do": STEP, ...}; for each of them one answer is printed, all of them as one list:

  init                       IKE_SA_INIT; a COOKIE that is asked for is brought
  auth                       IKE_AUTH with a Child SA
  child                      CREATE_CHILD_SA; "rekeys": SPI or "last", "bits": key length that is offered,
                             "remote_ts": other selectors, "without": a payload type that is left out
  rekey_ike                  CREATE_CHILD_SA for an IKE SA, by a group that is offered and not wanted
  inform                     INFORMATIONAL; "delete": "old" deletes what the last rekey has replaced
  esp                        one packet under the SPI that the peer had before the last rekey
  signal                     "pid" gets the signal "name"

"critical": true puts an unknown critical payload of type 200 in front, "broken": true a payload that is longer than its
message. One suite: AES-128-GCM, HMAC-SHA2-256, X25519, PSK; ESP in AES-128-GCM. Keys are derived here, so that what an
answer says does not lean on anything of ours.
"""

import hashlib
import hmac
import ipaddress
import json
import os
import signal
import socket
import struct
import sys
import time

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

INIT, AUTH, CHILD, INFORMATIONAL = 34, 35, 36, 37
SA, KE, ID_I, AUTH_PAYLOAD, NONCE, NOTIFY, DELETE, TS_I, TS_R, SK = 33, 34, 35, 39, 40, 41, 42, 44, 45, 46
COOKIE, REKEY_SA = 16390, 16393
X25519, ECP256 = 31, 19
HEADER = struct.Struct("!8s8sBBBBII")
PATIENCE_S = 5


def prf(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def prf_plus(key, seed, length):
    out, block = b"", b""
    for number in range(1, 1 + (length + 31) // 32):
        block = prf(key, block + seed + bytes([number]))
        out += block
    return out[:length]


def chain(payloads):
    """Payloads one after the other, each with the type of the next one; the type of the first one."""
    kinds = [kind for kind, _, _ in payloads] + [0]
    out = b""
    for (_, flags, body), following in zip(payloads, kinds[1:]):
        out += struct.pack("!BBH", following, flags, 4 + len(body)) + body
    return kinds[0], out


def walk(kind, octets):
    """The payloads of a chain: type and body."""
    found = []
    while kind:
        following, _, length = struct.unpack("!BBH", octets[:4])
        found.append((kind, octets[4:length]))
        kind, octets = following, octets[length:]
    return found


def proposal(protocol, spi, transforms):
    body = b""
    for number, (kind, ident, bits) in enumerate(transforms):
        attribute = struct.pack("!HH", 0x800E, bits) if bits else b""
        last = 0 if number == len(transforms) - 1 else 3
        body += struct.pack("!BBHBBH", last, 0, 8 + len(attribute), kind, 0, ident) + attribute
    return struct.pack("!BBHBBBB", 0, 0, 8 + len(spi) + len(body), 1, protocol, len(spi), len(transforms)) + spi + body


def selector(prefix):
    net = ipaddress.ip_network(prefix)
    ends = net.network_address.packed + net.broadcast_address.packed
    return struct.pack("!BBHBBHHH", 1, 0, 0, 7, 0, 16, 0, 65535) + ends


def notify(kind, data=b"", protocol=0, spi=b""):
    return (NOTIFY, 0, struct.pack("!BBH", protocol, len(spi), kind) + spi + data)


class Peer:
    """One end of one IKE SA."""

    def __init__(self, job):
        self.job = job
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((job["local"], 500))
        self.socket.settimeout(PATIENCE_S)
        self.last = self.old = None

    def ask(self, exchange, number, message):
        """Sends a request; the answer to it."""
        self.socket.sendto(message, (self.job["remote"], 500))
        while True:
            answer = self.socket.recv(65535)
            head = HEADER.unpack(answer[: HEADER.size])
            if head[0] == self.spi_i and head[4] == exchange and head[5] & 0x20 and head[6] == number:
                return head, answer

    def init(self, _step):
        self.spi_i, self.spi_r = b"\x01" + os.urandom(7), bytes(8)
        self.nonce_i, self.private = os.urandom(32), X25519PrivateKey.generate()
        public = self.private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        ike = proposal(1, b"", [(1, 20, 128), (2, 5, 0), (4, X25519, 0)])
        payloads = [(SA, 0, ike), (KE, 0, struct.pack("!HH", X25519, 0) + public), (NONCE, 0, self.nonce_i)]
        said = []
        while True:
            first, body = chain(payloads)
            head = HEADER.pack(self.spi_i, bytes(8), first, 0x20, INIT, 0x08, 0, HEADER.size + len(body))
            self.request = head + body
            head, self.response = self.ask(INIT, 0, self.request)
            found = walk(head[2], self.response[HEADER.size :])
            said += found
            cookies = [body[4:] for kind, body in found if kind == NOTIFY and body[2:4] == struct.pack("!H", COOKIE)]
            if not cookies or payloads[0][0] == NOTIFY:
                break
            payloads.insert(0, notify(COOKIE, cookies[0]))
        parts = dict(found)
        if KE in parts:
            self.spi_r, self.nonce_r = head[1], parts[NONCE]
            self.grow(self.private.exchange(X25519PublicKey.from_public_bytes(parts[KE][4:])))
        return said

    def grow(self, shared):
        nonces = self.nonce_i + self.nonce_r
        keys = prf_plus(prf(nonces, shared), nonces + self.spi_i + self.spi_r, 32 + 2 * 20 + 2 * 32)
        (ei, er), self.sk_pi = (keys[32:52], keys[52:72]), keys[72:104]
        self.seal, self.salt = AESGCM(ei[:16]), ei[16:]
        self.open, self.their_salt = AESGCM(er[:16]), er[16:]
        self.number = 1

    def protected(self, exchange, payloads, step):
        if step.get("critical"):
            payloads = [(200, 0x80, b"")] + payloads
        first, body = chain(payloads)
        if step.get("broken"):
            first, body = NONCE, struct.pack("!BBH", 0, 0, 400) + bytes(16)
        iv, plain = struct.pack("!Q", self.number), body + b"\0"
        length = HEADER.size + 4 + len(iv) + len(plain) + 16
        head = HEADER.pack(self.spi_i, self.spi_r, SK, 0x20, exchange, 0x08, self.number, length)
        head += struct.pack("!BBH", first, 0, length - HEADER.size)
        message = head + iv + self.seal.encrypt(self.salt + iv, plain, head)
        number, self.number = self.number, self.number + 1
        _, answer = self.ask(exchange, number, message)
        start = HEADER.size + 4
        inside = self.open.decrypt(self.their_salt + answer[start : start + 8], answer[start + 8 :], answer[:start])
        return walk(answer[HEADER.size], inside[: len(inside) - 1 - inside[-1]])

    def esp_payloads(self, step):
        self.ours = b"\xc0" + os.urandom(3)
        esp = proposal(3, self.ours, [(1, 20, step.get("bits", 128)), (5, 0, 0)])
        remote = step.get("remote_ts", self.job["remote_ts"])
        return [(SA, 0, esp), (TS_I, 0, selector(self.job["local_ts"])), (TS_R, 0, selector(remote))]

    def made(self, found):
        """Notes the SPIs of a Child SA that was made: ours and the peer's."""
        body = dict(found).get(SA)
        if body:
            self.old, self.last = self.last, (self.ours, body[8:12])
        return found

    def auth(self, step):
        ident = struct.pack("!BBBB", 2, 0, 0, 0) + self.job["local_id"].encode()
        key = prf(self.job["secret"].encode(), b"Key Pad for IKEv2")
        value = prf(key, self.request + self.nonce_r + prf(self.sk_pi, ident))
        payloads = [(ID_I, 0, ident), (AUTH_PAYLOAD, 0, struct.pack("!BBBB", 2, 0, 0, 0) + value)]
        return self.made(self.protected(AUTH, payloads + self.esp_payloads(step), step))

    def child(self, step):
        payloads = self.esp_payloads(step)
        payloads.insert(1, (NONCE, 0, os.urandom(32)))
        rekeys = step.get("rekeys")
        if rekeys:
            spi = self.last[0] if rekeys == "last" else bytes.fromhex(rekeys)
            payloads.insert(0, notify(REKEY_SA, protocol=3, spi=spi))
        payloads = [payload for payload in payloads if payload[0] != step.get("without")]
        return self.made(self.protected(CHILD, payloads, step))

    def rekey_ike(self, step):
        ike = proposal(1, os.urandom(8), [(1, 20, 128), (2, 5, 0), (4, ECP256, 0), (4, X25519, 0)])
        # The point is none; whoever wants another group does not look at it.
        group = (KE, 0, struct.pack("!HH", ECP256, 0) + bytes(64))
        return self.protected(CHILD, [(SA, 0, ike), (NONCE, 0, os.urandom(32)), group], step)

    def inform(self, step):
        payloads = []
        if step.get("delete") == "old":
            payloads = [(DELETE, 0, struct.pack("!BBH", 3, 4, 1) + self.old[0])]
        return self.protected(INFORMATIONAL, payloads, step)

    def esp(self, _step):
        time.sleep(0.2)  # What was deleted has left the data plane by then.
        raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ESP)
        raw.bind((self.job["local"], 0))
        raw.sendto(self.old[1] + struct.pack("!I", 9) + os.urandom(88), (self.job["remote"], 0))
        return []

    def signal(self, step):
        os.kill(step["pid"], getattr(signal, step["name"]))
        return []


def told(found):
    """An answer as the test reads it."""
    notifies = []
    for kind, body in found:
        if kind == NOTIFY:
            spi_end = 4 + body[1]
            number = struct.unpack("!H", body[2:4])[0]
            notifies.append({"type": number, "spi": body[4:spi_end].hex(), "data": body[spi_end:].hex()})
    return {"payloads": [kind for kind, _ in found], "notifies": notifies}


def main():
    with open(sys.argv[1]) as file:
        job = json.load(file)
    peer = Peer(job)
    answers = []
    for step in job["steps"]:
        begun = time.monotonic()
        try:
            answer = told(getattr(peer, step["do"])(step))
        except TimeoutError:
            answer = {"payloads": [], "notifies": [], "silence": True}
        answers.append({**answer, "ms": round((time.monotonic() - begun) * 1000)})
    print(json.dumps(answers))


main()
