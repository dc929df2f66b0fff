#!/usr/bin/env python3
"""Reads the test vectors of this folder, from docs/SPEC.md alone: no code of the crate is used.

    pip install -r tests/vectors/requirements.txt
    python3 tests/vectors/check.py [name ...]

Needs `cryptography` 44 or later (AES-GCM, ChaCha20-Poly1305, Ed25519, X25519, Argon2id); the rest is the standard library.
"""

import base64
import hashlib
import hmac
import json
import re
import struct
import sys
import unicodedata
from datetime import datetime, timedelta, timezone
from pathlib import Path

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id


class Refused(Exception):
    """`args[0]` is what reading came to."""


def malformed(what=""):
    return Refused("malformed", what)


def unsupported(what=""):
    return Refused("unsupported", what)


def closed(what=""):
    return Refused("does-not-open", what)


# 1. Notation


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        if n > len(self.data) - self.at:
            raise malformed("length")
        self.at += n
        return self.data[self.at - n : self.at]

    def rest(self):
        return self.take(len(self.data) - self.at)

    def more(self):
        return self.at < len(self.data)

    def end(self):
        if self.more():
            raise malformed("bytes after the end")

    def uint(self, n):
        return int.from_bytes(self.take(n), "big")

    def u8(self):
        return self.uint(1)

    def u16(self):
        return self.uint(2)

    def u32(self):
        return self.uint(4)

    def u64(self):
        return self.uint(8)

    def i64(self):
        return int.from_bytes(self.take(8), "big", signed=True)

    def flag(self):
        value = self.u8()
        if value > 1:
            raise malformed("flag")
        return value == 1

    def varint(self):
        value = 0
        for i in range(5):
            byte = self.u8()
            if i == 4 and byte > 0x0F:
                raise malformed("varint")
            value |= (byte & 0x7F) << (7 * i)
            if byte < 0x80:
                if byte == 0 and i > 0:
                    raise malformed("varint is not minimal")
                return value
        raise malformed("varint")

    def bytes(self):
        return self.take(self.varint())

    def text(self):
        try:
            return self.bytes().decode("utf-8")
        except UnicodeDecodeError:
            raise malformed("text") from None


def u16(n):
    return struct.pack(">H", n)


def u32(n):
    return struct.pack(">I", n)


def u64(n):
    return struct.pack(">Q", n)


def varint(n):
    out = b""
    while n >= 0x80:
        out += bytes([n & 0x7F | 0x80])
        n >>= 7
    return out + bytes([n])


def counted(data):
    return varint(len(data)) + data


def H(data):
    return hashlib.sha256(data).digest()


def prf(key, data):
    return hmac.new(key, data, hashlib.sha256).digest()


def expand(key, info):
    return prf(key, info + b"\x01")


# 4. Suites


def hchacha20(key, nonce):
    def rotate(x, n):
        return (x << n | x >> (32 - n)) & 0xFFFFFFFF

    s = list(struct.unpack("<4I8I4I", b"expand 32-byte k" + key + nonce))

    def quarter(a, b, c, d):
        for x, y, z, n in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            s[x] = (s[x] + s[y]) & 0xFFFFFFFF
            s[z] = rotate(s[z] ^ s[x], n)

    for _ in range(10):
        for i in range(4):
            quarter(i, 4 + i, 8 + i, 12 + i)
        for i in range(4):
            quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4)
    return struct.pack("<8I", *s[:4], *s[12:])


def cipher(suite, key, nonce):
    if suite == 1:
        return AESGCM(key), nonce[:12]
    if suite == 2:
        nonce += bytes(8)
        return ChaCha20Poly1305(hchacha20(key, nonce[:16])), bytes(4) + nonce[16:]
    raise unsupported("suite")


def seal(suite, key, nonce, aad, plaintext):
    box, nonce = cipher(suite, key, nonce)
    return box.encrypt(nonce, plaintext, aad)


def open_(suite, key, nonce, aad, sealed):
    box, nonce = cipher(suite, key, nonce)
    try:
        return box.decrypt(nonce, sealed, aad)
    except InvalidTag:
        raise closed() from None


# 2, 5 to 8. Shelf, context, sealed value, cell


def shelf_keys(day_key, purpose_key, suite):
    shelf = prf(day_key, purpose_key)
    label = lambda name: expand(shelf, b"customer-vault/v1/" + name + bytes([suite]))
    return shelf, label(b"hedge"), label(b"second-hedge"), label(b"wrap")


def context(vault, serial, record, record_id, shape):
    parts = [b"customer-vault/v1/context", vault, serial, record.encode(), record_id, bytes([shape])]
    return b"".join(u16(len(part)) + part for part in parts)


class Cell:
    def __init__(self, data):
        r = Reader(data)
        self.suite = r.u8()
        if self.suite not in (1, 2):
            raise unsupported("suite")
        self.generation = r.u16()
        count = r.u8()
        if not 1 <= count <= 128:
            raise malformed("fields")
        self.fields, last = [], 0
        for _ in range(count):
            code = r.varint()
            last += code >> 1
            if code >> 1 == 0 or last > 65535:
                raise malformed("field")
            self.fields.append((last, code & 1))
        count = r.u8()
        if not 1 <= count <= 32:
            raise malformed("lockboxes")
        self.boxes = [(r.u16(), r.u16()) for _ in range(count)]
        if any(b <= a for a, b in zip([0] + [p for p, _ in self.boxes], [p for p, _ in self.boxes])):
            raise malformed("purposes")
        self.header = data[: r.at]
        self.seal_id = r.take(16)
        self.locks = [r.take(48) for _ in range(count)]
        self.body = r.rest()
        if not 48 <= len(self.body) <= (16 << 20) + 48:
            raise malformed("body")

    def content_key(self, context, purpose, day_key, purpose_key):
        index = [p for p, _ in self.boxes].index(purpose)
        day = self.boxes[index][1]
        wrap = shelf_keys(day_key, purpose_key, self.suite)[3]
        aad = context + self.seal_id + u16(purpose) + u16(day)
        return open_(self.suite, wrap, self.seal_id, aad, self.locks[index])

    def open(self, context, purpose, day_key, purpose_key):
        key = self.content_key(context, purpose, day_key, purpose_key)
        body = open_(self.suite, key, bytes(16), context + self.header, self.body)
        if not hmac.compare_digest(body[:32], bytes(32)):
            raise closed("commitment")
        try:
            r, values = Reader(body[32:]), []
            for number, padded in self.fields:
                values.append((number, slot(r, padded)))
            r.end()
            return values
        except Refused:
            raise closed("values") from None


def value(r):
    n = r.varint()
    return None if n == 0 else r.take(n - 1)


def slot(r, padded):
    if not padded:
        return value(r)
    inner = value(r)
    if inner is None:
        raise malformed("padded slot")
    inner = Reader(inner)
    found = value(inner)
    if any(inner.rest()):
        raise malformed("padding")
    return found


def put_value(data):
    return b"\x00" if data is None else varint(len(data) + 1) + data


def put_slot(data, padding):
    inner = put_value(data)
    if padding == 0:
        return inner
    inner += bytes(-len(inner) % padding)
    return varint(len(inner) + 1) + inner


def seal_cell(suite, generation, prefix, counter, context, fields, boxes):
    """Boxes: purpose, day, day key, purpose key. Returns the cell and what it was made by way of."""
    header, last = bytes([suite]) + u16(generation) + bytes([len(fields)]), 0
    for number, padding, _ in fields:
        header += varint((number - last) << 1 | (padding > 0))
        last = number
    header += bytes([len(boxes)]) + b"".join(u16(p) + u16(d) for p, d, _, _ in boxes)
    plaintext = b"".join(put_slot(data, padding) for _, padding, data in fields)
    _, hedge, second, _ = shelf_keys(boxes[0][2], boxes[0][3], suite)
    parts = b"".join(u32(len(part)) + part for part in (context, header, plaintext))
    key = prf(hedge, prefix + u64(counter) + parts)
    seal_id = prf(second, key)[:16]
    cell = header + seal_id
    for purpose, day, day_key, purpose_key in boxes:
        wrap = shelf_keys(day_key, purpose_key, suite)[3]
        cell += seal(suite, wrap, seal_id, context + seal_id + u16(purpose) + u16(day), key)
    cell += seal(suite, key, bytes(16), context + header, bytes(32) + plaintext)
    return cell, {
        "context": context,
        "header": header,
        "plaintext": plaintext,
        "content_key": key,
        "seal_id": seal_id,
    }


def sealed_value(data):
    r = Reader(data)
    if r.u8() != 1:
        raise unsupported("version")
    cells, last, seen = [], 0, set()
    while r.more():
        cell = Cell(r.bytes())
        numbers = [number for number, _ in cell.fields]
        if len(cells) == 128 or numbers[0] <= last or seen & set(numbers):
            raise malformed("cells")
        last, seen = numbers[0], seen | set(numbers)
        cells.append(cell)
    return cells


# 9. Built-in values

COUNTRIES = """AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY
    BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA
    GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG
    KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW
    MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD
    SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA
    VC VE VG VI VN VU WF WS YE YT ZA ZM ZW""".split()


def want(holds):
    if not holds:
        raise malformed("value")


def utf8(data):
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise malformed("text") from None


def among(c, *ranges):
    return any(first <= ord(c) <= last for first, last in ranges)


REORDER = ((0x202A, 0x202E), (0x2066, 0x206F), (0xFDD0, 0xFDEF), (0xFFF9, 0xFFFB))
HIDE = ((0xAD, 0xAD), (0x61C, 0x61C), (0x115F, 0x1160), (0x180E, 0x180E), (0x200B, 0x200B), (0x200E, 0x200F),
        (0x2060, 0x2065), (0x3164, 0x3164), (0xFEFF, 0xFEFF), (0xFFA0, 0xFFA0), (0xFFFD, 0xFFFD), (0xE0000, 0xE007F))


def line(text, longest):
    want(1 <= len(text) <= longest and unicodedata.is_normalized("NFC", text))
    want(not text.startswith(" ") and not text.endswith(" ") and "  " not in text)
    for c in text:
        want(c == " " or not c.isspace())
        want(unicodedata.category(c) != "Cc" and ord(c) & 0xFFFE != 0xFFFE and not among(c, *REORDER, *HIDE))
    return text


def block(text, longest):
    want(1 <= len(text.encode()) <= longest)
    for c in text:
        want(c in "\t\n\r" or unicodedata.category(c) != "Cc")
        want(ord(c) & 0xFFFE != 0xFFFE and not among(c, *REORDER))


def email(data):
    text = line(utf8(data), 254)
    want(len(data) <= 254 and text.count("@") == 1)
    local, domain = text.split("@")
    want(1 <= len(local.encode()) <= 64 and all(local.split(".")))
    want(all(not c.isascii() or c.isalnum() or c in "!#$%&'*+-/=?^_`{|}~." for c in local))
    labels = domain.split(".")
    want(len(labels) >= 2 and not re.fullmatch("[0-9]+", labels[-1]))
    for label in labels:
        want(1 <= len(label.encode()) <= 63 and label[0] != "-" and label[-1] != "-")
        want(all(not c.isascii() or re.fullmatch("[a-z0-9-]", c) for c in label))


def date(text):
    want(re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", text) and "1800" <= text[:4] <= "2149")
    try:
        datetime.strptime(text, "%Y-%m-%d")
    except ValueError:
        raise malformed("date") from None


def resident_id(data):
    text = utf8(data)
    want(re.fullmatch("[0-9]{17}[0-9X]", text))
    date(f"{text[6:10]}-{text[10:12]}-{text[12:14]}")
    weighted = sum((2 ** (17 - i) % 11) * int(digit) for i, digit in enumerate(text[:17]))
    want("10X98765432"[weighted % 11] == text[17])


def is_card(text):
    if not re.fullmatch("[0-9]{12,19}", text):
        return False
    double = lambda n: n * 2 if n < 5 else n * 2 - 9
    return sum(double(int(d)) if i % 2 else int(d) for i, d in enumerate(reversed(text))) % 10 == 0


def payment_token(data):
    want(re.fullmatch(rb"[0-9]{4}[\x21-\x7E]{1,255}", data))
    token = data[4:].decode()
    want(not (re.fullmatch("[0-9]+(-[0-9]+)*", token) and is_card(token.replace("-", ""))))


def iban(data):
    text = utf8(data)
    want(re.fullmatch("[A-Z]{2}[0-9]{2}[A-Z0-9]{0,30}", text) and text[2:4] not in ("00", "01"))
    want(int("".join(str(int(c, 36)) for c in text[4:] + text[:4])) % 97 == 1)


def postal_address(data):
    r = Reader(data)
    want(utf8(r.take(2)) in COUNTRIES)
    count = r.u8()
    want(1 <= count <= 8)
    for _ in range(count):
        line(r.text(), 256)
    for longest in (128, 128, 16):
        part = r.text()
        if part:
            line(part, longest)
    want(re.fullmatch("[A-Z0-9 -]*", part))
    r.end()


def an_order_line(data):
    r = Reader(data)
    want(r.u32() >= 1)
    r.i64()
    want(re.fullmatch(b"[A-Z]{3}", r.take(3)))
    line(utf8(r.rest()), 512)


def browsing_event(data):
    r = Reader(data)
    want(0 <= r.i64() < 65536 * 86_400_000)
    line(r.text(), 64)
    line(r.text(), 2048)
    r.end()


VALUES = {
    "person-name": lambda data: line(utf8(data), 256),
    "email": email,
    "phone": lambda data: want(re.fullmatch(rb"\+[1-9][0-9]{4,14}(x[0-9]{1,9})?", data)),
    "postal-address": postal_address,
    "resident-id": resident_id,
    "date-of-birth": lambda data: date(utf8(data)),
    "card-number": lambda data: want(is_card(utf8(data))),
    "iban": iban,
    "payment-token": payment_token,
    "ip-address": lambda data: want(len(data) == 4 or len(data) == 16 and data[:12] != bytes(10) + b"\xff\xff"),
    "free-text": lambda data: block(utf8(data), 65536),
    "search-query": lambda data: line(utf8(data), 1024),
    "order-line": an_order_line,
    "browsing-event": browsing_event,
    "bytes": lambda data: want(len(data) <= 1 << 20),
    "as-entered": lambda data: want(1 <= len(utf8(data).encode()) <= 4096),
}


def check_values(v):
    for one in v["values"]:
        VALUES[one["type"]](bytes.fromhex(one["bytes"]))
        for refused in one["refused"]:
            try:
                VALUES[one["type"]](bytes.fromhex(refused))
            except Refused:
                continue
            raise AssertionError(f"{one['type']} takes {refused}")


# 10. Wrapped row


class Row:
    def __init__(self, data):
        r = Reader(data)
        if r.u8() != 1:
            raise unsupported("version")
        self.suite = r.u8()
        if self.suite not in (1, 2):
            raise unsupported("suite")
        self.parent, self.generation = r.u64(), r.u64()
        self.serial = r.take(16)
        count = r.u16()
        if count > 4096:
            raise malformed("parts")
        self.names = [(r.u8(), r.u16(), r.u16(), r.u32()) for _ in range(count)]
        if any(b[:3] <= a[:3] for a, b in zip(self.names, self.names[1:])):
            raise malformed("order of parts")
        self.header = data[: r.at]
        self.parts = [r.take(name[3] + 32) for name in self.names]
        r.end()

    def open(self, node_key, vault, name):
        """All parts, by (kind, generation, purpose)."""
        opened = {}
        key, nonce_key = row_keys(node_key, self.suite)
        for index, (part, data) in enumerate(zip(self.names, self.parts)):
            aad = row_aad(vault, name, self.header, index)
            nonce = data[:16]
            plain = open_(self.suite, key, nonce, aad + nonce, data[16:])
            same("hedged nonce", prf(nonce_key, u32(len(aad)) + aad + plain)[:16], nonce)
            opened[part[:3]] = plain
        return opened

    def whole(self, node_key, vault, name):
        opened = self.open(node_key, vault, name)
        if list(opened) != [(0, 0, 0)]:
            raise malformed("no whole")
        return opened[0, 0, 0]


def row_keys(node_key, suite):
    label = lambda name: expand(node_key, b"customer-vault/v1/" + name + bytes([suite]))
    return label(b"row-wrap"), label(b"row-nonce")


def row_aad(vault, name, header, index):
    return counted(b"customer-vault/v1/row") + vault + counted(name) + counted(header) + u16(index)


def wrap_row(suite, node_key, vault, name, parent, generation, serial, parts):
    header = bytes([1, suite]) + u64(parent) + u64(generation) + serial + u16(len(parts))
    for kind, enrolment, purpose, plain in parts:
        header += bytes([kind]) + u16(enrolment) + u16(purpose) + u32(len(plain))
    key, nonce_key = row_keys(node_key, suite)
    row = header
    for index, (_, _, _, plain) in enumerate(parts):
        aad = row_aad(vault, name, header, index)
        nonce = prf(nonce_key, u32(len(aad)) + aad + plain)[:16]
        row += nonce + seal(suite, key, nonce, aad + nonce, plain)
    return row


# 17. Tokens

IDENTIFIER = re.compile(rb"[A-Za-z0-9._:@-]{1,64}")
KINDS = {1: "staff", 2: "service", 3: "third-party"}


def identifier(data):
    if not IDENTIFIER.fullmatch(data):
        raise malformed("identifier")
    return data.decode()


def actor(data):
    if not data:
        raise malformed("actor")
    if data[0] not in KINDS:
        raise unsupported("kind of actor")
    return KINDS[data[0]] + ":" + identifier(data[1:])


def claims(data):
    r, found, last = Reader(data), {}, 0
    while r.more():
        number = r.u8()
        if number <= last:
            raise malformed("order of claims")
        last = number
        found[number] = r.bytes()
    return found


def exactly(data, n):
    if len(data) != n:
        raise malformed("length of a claim")
    return data


def second(data):
    value = int.from_bytes(exactly(data, 8), "big", signed=True)
    if not 0 <= value <= 253_402_300_799:
        raise malformed("second")
    return value


def sixteens(data, least, most):
    items = [data[i : i + 16] for i in range(0, len(data), 16)]
    if len(data) % 16 or not least <= len(items) <= most:
        raise malformed("list")
    if any(b <= a for a, b in zip(items, items[1:])):
        raise malformed("order of a list")
    return items


def field_list(data):
    if not 1 <= len(data) <= 4096:
        raise malformed("fields")
    r, found = Reader(data), []
    while r.more():
        record = identifier(r.text().encode())
        count = r.varint()
        numbers = list(struct.unpack(f">{count}H", r.take(2 * count)))
        if not numbers or any(b <= a for a, b in zip(numbers, numbers[1:])):
            raise malformed("field numbers")
        if found and found[-1][0].encode() >= record.encode():
            raise malformed("order of records")
        found.append([record, numbers])
    return found


def flat(fields):
    return {(record, number) for record, numbers in fields for number in numbers}


def known(found, most):
    if any(number > most for number in found):
        raise unsupported("claim")


def token(text, key, vault, ask=()):
    if len(text.encode()) > 8192:
        raise malformed("too long")
    if not text.startswith("cv1."):
        raise unsupported("version") if re.match(r"cv[0-9]{1,4}\.", text) else malformed("prefix")
    body = text[4:]
    if not re.fullmatch(r"[A-Za-z0-9_-]*", body):
        raise malformed("base64")
    try:
        data = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    except ValueError:
        raise malformed("base64") from None
    if base64.urlsafe_b64encode(data).rstrip(b"=").decode() != body:
        raise malformed("stray bits")
    r = Reader(data)
    if r.u8() != 1:
        raise unsupported("version")
    if len(data) < 33:
        raise malformed("length")
    r = Reader(data[1:-32])
    head, blocks = r.bytes(), []
    while r.more():
        blocks.append(r.bytes())
    if len(blocks) > 16:
        raise unsupported("narrowings")

    found = claims(head)
    known(found, 9)
    if not set(range(1, 8)) <= set(found):
        raise malformed("claims of the head")
    out = {
        "id": exactly(found[1], 16).hex(),
        "purpose": int.from_bytes(exactly(found[3], 2), "big"),
        "actors": [actor(found[4])],
        "ground": identifier(found[5]),
        "not_before": second(found[6]),
        "expires": second(found[7]),
        "fields": field_list(found[9]) if 9 in found else [],
    }
    limited = 9 in found
    if out["not_before"] >= out["expires"]:
        raise malformed("start after end")
    levels = []
    if 8 in found:
        hints = prf(key, b"customer-vault/v1/token/hints" + found[1])
        levels.append((hints, sixteens(found[8], 1, 64)))

    cuts = []
    for block in blocks:
        cut = claims(block)
        known(cut, 5)
        if not cut:
            raise malformed("empty narrowing")
        parsed = {}
        for number, read in ((1, second), (2, second), (3, lambda x: exactly(x, 16)), (4, field_list), (5, actor)):
            if number in cut:
                parsed[number] = read(cut[number])
        cuts.append(parsed)

    mac = prf(key, b"customer-vault/v1/token/head" + vault + head)
    before = []
    for block in blocks:
        before.append(mac)
        mac = prf(mac, b"customer-vault/v1/token/narrow" + block)
    if not hmac.compare_digest(mac, data[-32:]) or exactly(found[2], 16) != vault:
        raise Refused("denied", "not ours")
    for mac, cut in zip(before, cuts):
        later = cut.get(1, out["expires"]) > out["expires"]
        earlier = cut.get(2, out["not_before"]) < out["not_before"]
        if later or earlier or (4 in cut and limited and not flat(cut[4]) <= flat(out["fields"])):
            raise Refused("denied", "wider")
        out["expires"] = cut.get(1, out["expires"])
        out["not_before"] = cut.get(2, out["not_before"])
        if 4 in cut:
            out["fields"], limited = cut[4], True
        if 5 in cut:
            out["actors"].append(cut[5])
        if 3 in cut:
            levels.append((mac, [cut[3]]))

    def reaches(subject):
        hint = lambda key: prf(key, b"customer-vault/v1/token/subject" + subject.encode())[:16]
        return all(hint(key) in hints for key, hints in levels)

    return out, [subject for subject in ask if reaches(subject)]


# 16. Journal


def event(data):
    r = Reader(data)
    if r.u8() != 1:
        raise unsupported("version")
    kind = r.u8()
    tag_state = lambda: (r.take(16), r.u64())
    out = [kind]
    if kind == 1:
        out += [r.u64(), r.take(16)]
    elif kind == 2:
        out += [*tag_state(), r.i64(), r.u16(), []]
        while r.more():
            out[-1].append((r.u16(), r.u16()))
    elif kind in (3, 7, 8):
        out += tag_state()
    elif kind in (4, 6):
        out += [*tag_state(), r.u16()]
    elif kind == 5:
        out += [*tag_state(), r.u16(), r.u16()]
    elif kind in (9, 10):
        out.append(r.u16())
    elif kind == 11:
        out.append(r.take(16))
    elif kind == 12:
        out.append(actor(r.rest()))
    elif kind == 13:
        out += [r.u16(), r.i64()]
    elif kind == 14:
        out.append(r.i64())
    elif kind == 15:
        out.append(r.flag())
    elif kind == 16:
        out += [r.u64(), r.take(32)]
    elif kind == 17:
        out += [r.u16(), r.u32()]
    elif kind == 19:
        out += [r.u16(), r.u16(), r.u16(), r.take(32)]
    elif kind == 20:
        out.append(r.u32())
    elif kind == 30:
        out += [r.take(16), r.i64(), r.u64(), r.u16()]
    elif kind == 31:
        out.append(r.take(16))
    elif kind == 32:
        out += [r.u16(), r.u64(), r.u64()]
    elif kind == 33:
        out.append(r.u64())
    elif kind not in (0, 18, 34):
        raise unsupported("event")
    r.end()
    return out


def journal(key, vault, lines):
    number, head, events = 0, prf(key, b"customer-vault/v1/journal" + vault), []
    for line in lines:
        number += 1
        head = prf(key, b"customer-vault/v1/journal" + head + u64(number) + line[32:])
        same("journal chain", line[:32], head)
        if len(line) > 4096:
            raise malformed("line")
        events.append(event(line[32:]))
    return u64(number) + head, events


# 18. Log


def log_entry(data):
    if len(data) > 32768:
        raise malformed("entry")
    r = Reader(data)
    if r.u8() != 1:
        raise unsupported("version")
    out = {"time": r.i64(), "action": r.u8(), "outcome": r.u8()}
    if not 1 <= out["action"] <= 31:
        raise unsupported("action")
    found = claims(r.rest())
    known(found, 9)
    if 1 in found:
        names = Reader(found[1])
        out["actors"] = []
        while names.more():
            out["actors"].append(actor(names.bytes()))
    if 2 in found:
        out["ground"] = identifier(found[2])
    if 5 in found:
        out["subjects"] = sixteens(found[5], 1, 1024)
    if 6 in found:
        out["reference"] = exactly(found[6], 16)
    if 7 in found:
        field_list(found[7])
    return out


def lane_start(vault, lane):
    return H(b"customer-vault/v1/log/lane" + vault + lane)


def lane_next(head, number, row):
    entry = row[32:]
    head = H(b"customer-vault/v1/log/entry" + head + u64(number) + u32(len(entry)) + entry)
    if head != row[:32]:
        raise Refused("altered")
    return head


def merkle(leaves):
    if not leaves:
        return H(b"")
    if len(leaves) == 1:
        return H(b"\x00" + leaves[0])
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return H(b"\x01" + merkle(leaves[:half]) + merkle(leaves[half:]))


def heads(data):
    r = Reader(data)
    if r.u8() != 1:
        raise unsupported("version")
    found = []
    while r.more():
        found.append((r.take(16), r.u64(), r.take(32)))
        if len(found) > 1 and found[-2][0] >= found[-1][0]:
            raise malformed("order of heads")
    return found


def heads_root(found):
    leaf = lambda head: b"customer-vault/v1/log/head" + head[0] + u64(head[1]) + head[2]
    return merkle([leaf(head) for head in found])


def check_checkpoint(vault, verifier_key, note, found):
    lines = verify_note(note, verifier_key).split("\n")
    same("origin", lines[0], "customer-vault/" + vault.hex())
    same("number of lanes", lines[1], str(len(found)))
    same("tree hash", base64.b64decode(lines[2], validate=True), heads_root(found))
    assert re.fullmatch(r"time \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", lines[3]) and lines[4:] == [""]


# 19. Notes


def canonical_base64(text):
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        raise malformed("base64") from None
    if base64.b64encode(data).decode() != text:
        raise malformed("base64")
    return data


def verifier(text):
    name, key_id, typed = text.split("+", 2)
    typed = canonical_base64(typed)
    assert typed[0] == 1 and len(typed) == 33
    computed = H(name.encode() + b"\n" + typed)[:4]
    same("key id", computed.hex(), key_id)
    return name, computed, Ed25519PublicKey.from_public_bytes(typed[1:])


def verify_note(note, verifier_key):
    name, key_id, key = verifier(verifier_key)
    if any(ord(c) < 0x20 and c != "\n" for c in note) or len(note.encode()) > 1 << 20:
        raise malformed("note")
    at = note.rfind("\n\n")
    if at < 0 or not note.endswith("\n"):
        raise malformed("note")
    text, lines = note[: at + 1], note[at + 2 : -1].split("\n")
    if len(lines) > 64:
        raise malformed("signatures")
    verified = False
    for line in lines:
        if not line.startswith("\u2014 ") or line.count(" ") != 2:
            raise malformed("signature line")
        _, signer, data = line.split(" ")
        data = canonical_base64(data)
        if len(data) < 5:
            raise malformed("signature")
        if signer != name or data[:4] != key_id:
            continue
        try:
            key.verify(data[4:], text.encode())
        except InvalidSignature:
            raise closed("signature") from None
        verified = True
    if not verified:
        raise closed("no signature")
    return text


def sign_note(name, seed, text):
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public = key.public_key().public_bytes_raw()
    key_id = H(name.encode() + b"\n\x01" + public)[:4]
    signature = base64.b64encode(key_id + key.sign(text.encode())).decode()
    return f"{text}\n\u2014 {name} {signature}\n"


# 22. Keeper files


SLOT = 320 << 10


def key_file(slots, journal_file, vector):
    """The content with the highest number that opens; the older one only beside one that does not."""
    assert len(slots) == 2 and all(len(slot) <= SLOT for slot in slots)
    refused = []
    for slot in sorted(slots, key=stated_number, reverse=True):
        try:
            return content(slot, journal_file, vector)
        except Refused as error:
            refused.append(error)
    raise refused[0]


def stated_number(slot):
    found = re.search(r"^sequence (\d+)$", slot, re.MULTILINE)
    return int(found[1]) if found else -1


def content(file, journal_file, vector):
    lines = file.split("\n")
    names = ["customer-vault keeper", "kdf", "salt", "commitment", "vault", "sequence", "nonce", "body"]
    if len(lines) != 9 or lines[8] or any(not l.startswith(n + " ") for n, l in zip(names, lines)):
        raise Refused("keeper", "damaged")
    said = [line[len(name) + 1 :] for name, line in zip(names, lines)]
    if said[0] != "1":
        raise unsupported("version")
    salt, stated, nonce = (bytes.fromhex(said[i]) for i in (2, 3, 6))
    if said[1] == "hkdf-sha256":
        raw = bytes.fromhex(vector["key"])
        key = expand(raw, b"customer-vault/1 keeper file encryption" + salt)
        commitment = expand(raw, b"customer-vault/1 keeper file commitment" + salt)
    else:
        m, t, p = (int(n) for n in re.fullmatch(r"argon2id m=(\d+) t=(\d+) p=(\d+)", said[1]).groups())
        if m > 1 << 20 or t > 16 or p > 4:
            raise unsupported("cost")
        kdf = Argon2id(salt=salt, length=64, iterations=t, lanes=p, memory_cost=m)
        out = kdf.derive(vector["passphrase"].encode())
        key, commitment = out[:32], out[32:]
    if not hmac.compare_digest(commitment, stated):
        raise Refused("keeper", "wrong secret")
    header = file[: file.index("body ")].encode()
    body_key = expand(key, b"customer-vault/1 keeper file body" + nonce)
    try:
        r = Reader(open_(2, body_key, bytes(16), header, canonical_base64(said[7])))
    except Refused:
        raise Refused("keeper", "damaged") from None
    least, journal_key = r.u64(), r.take(32)
    active = r.take(16) if r.flag() else None
    roots = [(r.take(16), r.u64(), r.flag(), r.take(32)) for _ in range(r.u32())]
    r.end()
    assert all(a[0] < b[0] for a, b in zip(roots, roots[1:])) and len(roots) <= 4096
    if active is not None:
        [epoch] = [epoch for id_, epoch, on, _ in roots if id_ == active and on]
        assert all(other <= epoch for _, other, on, _ in roots if on)
    vault = bytes.fromhex(said[4])

    r = Reader(journal_file)
    signed = b"customer-vault journal 1\n" + vault
    same("journal header", r.take(len(signed)), signed)
    tag = r.take(16)
    same("header tag", prf(journal_key, b"customer-vault/1 keeper journal header" + signed)[:16], tag)
    found = []
    while any(r.data[r.at :]):  # zeros to the end are room
        length = r.take(4)
        payload = r.take(int.from_bytes(length, "big"))
        made = prf(journal_key, b"customer-vault/1 keeper journal append" + tag + length + payload)[:16]
        tag = r.take(16)
        same("append tag", made, tag)
        p = Reader(payload)
        same("number", p.u64(), len(found) + 1)
        while p.more():
            found.append(p.take(p.u16()))
    assert len(found) >= least
    return vault, active, roots, found


# What the vectors ask


def same(what, a, b):
    if a != b:
        raise AssertionError(f"{what}: {a!r} is not {b!r}")


def check_shelf(v):
    day_key, purpose_key = bytes.fromhex(v["day_key"]), bytes.fromhex(v["purpose_key"])
    for one in v["suites"]:
        keys = shelf_keys(day_key, purpose_key, one["suite"])
        same("shelf", keys[0].hex(), v["shelf_key"])
        names = ("hedge_key", "second_hedge_key", "wrap_key")
        same("keys", [key.hex() for key in keys[1:]], [one[name] for name in names])


def stated_context(v, record_id, shape):
    return context(bytes.fromhex(v["vault"]), bytes.fromhex(v["serial"]), v["record"], bytes.fromhex(record_id), shape)


def check_context(v):
    for one in v["contexts"]:
        same("context", stated_context(v, one["record_id"], one["shape"]).hex(), one["context"])


def check_cell(v):
    ctx = stated_context(v, v["record_id"], v["shape"])
    keys = [
        (box["purpose"], box["day"], bytes.fromhex(box["day_key"]), bytes.fromhex(box["purpose_key"]))
        for box in v["lockboxes"]
    ]
    cell = Cell(bytes.fromhex(v["cell"]))
    results = set()
    for purpose, day, day_key, purpose_key in keys:
        try:
            values = cell.open(ctx, purpose, day_key, purpose_key)
            results.add("opens")
            same("day", dict(cell.boxes)[purpose], day)
            given = [(f["number"], f["value"]) for f in v["fields"]]
            same("values", [(n, x if x is None else x.hex()) for n, x in values], given)
        except Refused as why:
            results.add(why.args[0])
    [result] = results
    if result != "opens":
        raise Refused(result)
    made, fields = v["made_from"], v["fields"]
    fields = [(f["number"], f["padding"], None if f["value"] is None else bytes.fromhex(f["value"])) for f in fields]
    again, steps = seal_cell(
        made["suite"], made["generation"], bytes.fromhex(made["prefix"]), made["counter"], ctx, fields, keys
    )
    same("steps", {name: step.hex() for name, step in steps.items()}, v["steps"])
    same("cell", again.hex(), v["cell"])


def check_sealed(v):
    cells = sealed_value(bytes.fromhex(v["sealed"]))
    same("fields", [[number for number, _ in cell.fields] for cell in cells], v["fields"])


def check_row(v):
    row, name, vault = bytes.fromhex(v["row"]), bytes.fromhex(v["name"]), bytes.fromhex(v["vault"])
    key, parsed = bytes.fromhex(v["parent_key"]), Row(row)
    opened = parsed.open(key, vault, name)
    parts = [(p["kind"], p["generation"], p["purpose"], bytes.fromhex(p["plaintext"])) for p in v["parts"]]
    same("parts", [(*k, x) for k, x in opened.items()], parts)
    same("parent", parsed.parent, v["parent_generation"])
    again = wrap_row(
        parsed.suite, key, vault, name, v["parent_generation"], 0, bytes.fromhex(v["serial"]), parts
    )
    same("row", again.hex(), v["row"])


def check_token(v):
    ask = v.get("asked", ())
    found, reached = token(v["token"], bytes.fromhex(v["token_key"]), bytes.fromhex(v["vault"]), ask)
    same("claims", found, v["claims"])
    same("reaches", reached, v["reaches"])


# 17. Tokens, "Ticket": HPKE (RFC 9180), base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM


def hpke_open(private, encapped, info, sealed):
    def extract(suite, salt, name, ikm):
        return prf(salt, b"HPKE-v1" + suite + name + ikm)

    def expanded(suite, key, name, info, length):
        info, out, block, n = length.to_bytes(2, "big") + b"HPKE-v1" + suite + name + info, b"", b"", 1
        while len(out) < length:
            block = prf(key, block + info + bytes([n]))
            out, n = out + block, n + 1
        return out[:length]

    raw = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    public = private.public_key().public_bytes(*raw)
    kem, suite = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x02"
    shared = private.exchange(X25519PublicKey.from_public_bytes(encapped))
    key = extract(kem, bytes(32), b"eae_prk", shared)
    shared = expanded(kem, key, b"shared_secret", encapped + public, 32)
    context = b"\0" + extract(suite, bytes(32), b"psk_id_hash", b"") + extract(suite, bytes(32), b"info_hash", info)
    secret = extract(suite, shared, b"secret", b"")
    key, nonce = expanded(suite, secret, b"key", context, 32), expanded(suite, secret, b"base_nonce", context, 12)
    try:
        return AESGCM(key).decrypt(nonce, sealed, b"")
    except InvalidTag:
        raise closed("ticket") from None


def check_ticket(v):
    data = bytes.fromhex(v["ticket"])
    name, _, key = verifier(v["verifier_key"])
    private = X25519PrivateKey.from_private_bytes(bytes.fromhex(v["reader_key"]))
    public = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    if data[0] != 1:
        raise unsupported("version")
    if len(data) > 1 << 20:
        raise malformed("length")
    r = Reader(data[:-64])
    r.u8()
    vault, ticket, purpose, given, ends, recipient = r.take(16), r.take(16), r.u16(), r.i64(), r.i64(), r.take(32)
    encapped, sealed = r.take(32), r.rest()
    if not 1 <= ends - given <= 3_600_000:
        raise malformed("lifetime")
    label = b"customer-vault/v1/ticket-signature"
    try:
        key.verify(data[-64:], bytes([len(label)]) + label + data[:-64])
    except InvalidSignature:
        raise Refused("denied") from None
    if name != f"customer-vault/{vault.hex()}" or recipient != public:
        raise Refused("denied")
    r = Reader(hpke_open(private, encapped, b"customer-vault/v1/ticket" + data[:83], sealed))
    said = {
        "id": ticket.hex(),
        "purpose": [purpose, r.text()],
        "given": given,
        "ends": ends,
        "fingerprint": H(b"customer-vault/v1/recipient" + public)[:16].hex(),
        "fields": field_list(r.bytes()) if r.flag() else [],
    }
    subjects, last = {}, b""
    for _ in range(r.u16()):
        hint, enrolments = r.take(16), []
        assert hint > last
        last = hint
        for _ in range(r.u16()):
            number, serial, until, remade = r.u16(), r.take(16).hex(), r.u16(), r.flag()
            shelves = [[r.u16(), r.take(32).hex()] for _ in range(r.u16())]
            assert shelves and shelves == sorted(shelves)
            one = {"number": number, "serial": serial, "until": until, "remade": bool(remade), "shelves": shelves}
            enrolments.append(one)
        subjects[hint] = enrolments
    r.end()
    same("claims", said, v["claims"])
    hint = lambda who: H(b"customer-vault/v1/ticket-subject" + ticket + who.encode())[:16]
    same("subjects", subjects, {hint(who): of for who, of in v["subjects"].items()})


def check_journal(v):
    lines = [bytes.fromhex(line["line"]) for line in v["lines"]]
    fence, events = journal(bytes.fromhex(v["journal_key"]), bytes.fromhex(v["vault"]), lines)
    same("fence", fence.hex(), v["fence"])
    same("kinds", sorted(e[0] for e in events), [*range(21), *range(30, 35)])
    rows = [bytes.fromhex(v["keys"][name]) for name in ("ring", "lookup")]
    label = b"customer-vault/v1/ring" + bytes.fromhex(v["vault"])
    (said,) = [e[4] for e in events if e[0] == 19]
    same("sum of the keys", said, prf(bytes.fromhex(v["journal_key"]), label + u32(len(rows[0])) + rows[0] + rows[1]))


def proven(journal_key, vault, name, row):
    named = b"customer-vault/v1/row-proof" + vault + u32(len(name)) + name
    if len(row) < 32 or prf(journal_key, named + row[:-32]) != row[-32:]:
        raise Refused("altered")
    return Reader(row[:-32])


def phase(r):
    version, kind = r.u8(), r.u8()
    same("batch", (version, kind in (1, 2, 3, 4)), (1, True))
    said = [kind]
    if kind != 4:
        said.append(r.u32())
    if kind == 2:
        said.append(r.u32())
    if kind == 3:
        said += [r.u64(), r.i64()]
    r.end()
    return said


def check_batch(v):
    key, vault = bytes.fromhex(v["journal_key"]), bytes.fromhex(v["vault"])
    name = bytes.fromhex(v["way"]["name"])
    r = proven(key, vault, name, bytes.fromhex(v["way"]["row"]))
    same("way", (r.u8(), r.flag(), r.u32()), (1, v["way"]["whole"], v["way"]["targets"]))
    nodes = []
    while r.more():
        nodes.append(r.bytes())
        r.u64()
    targets, above = nodes[: v["way"]["targets"]], nodes[v["way"]["targets"] :]
    between = {b"n" + bytes([n]) + t[2 : 2 + n] for t in targets for n in range(1, t[1])}
    same("above", above, sorted(between, key=lambda node: (-node[1], node)))
    name = bytes.fromhex(v["name"])
    same("names", name[1:], bytes.fromhex(v["way"]["name"])[1:])
    phases = [phase(proven(key, vault, name, bytes.fromhex(row))) for row in v["phases"]]
    same("phases", [said[0] for said in phases], [1, 2, 3, 4])
    same("left", phases[2][1:3], [v["left"]["removals"], v["left"]["epoch"]])


def check_log_lane(v):
    vault, lane = bytes.fromhex(v["vault"]), bytes.fromhex(v["lane"])
    head, rows = lane_start(vault, lane), [bytes.fromhex(row) for row in v["rows"]]
    for number, row in enumerate(rows, 1):
        head = lane_next(head, number, row)
    same("head", (b"\x01" + lane + u64(len(rows)) + head).hex(), v["head"])
    made = prf(bytes.fromhex(v["audit_key"]), b"customer-vault/v1/log/pseudonym" + vault)[:16]
    same("pseudonym", made.hex(), v["pseudonym"])
    for row, text in zip(rows, v["entries"]):
        entry = log_entry(row[32:])
        time = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=entry["time"])
        same("time", time.strftime("%Y-%m-%dT%H:%M:%SZ"), text.split(" ")[0])
        for who in entry.get("actors", ()):
            assert who in text
        for subject in entry.get("subjects", ()):
            same("subject", subject.hex(), v["pseudonym"])


def check_checkpoint_file(v):
    vault, found = bytes.fromhex(v["vault"]), heads(bytes.fromhex(v["heads"]))
    same("root", heads_root(found).hex(), v["root"])
    check_checkpoint(vault, v["verifier_key"], v["note"], found)
    text = verify_note(v["note"], v["verifier_key"])
    same("note", sign_note("customer-vault/" + v["vault"], bytes.fromhex(v["seed"]), text), v["note"])


def check_note(v):
    text = verify_note(v["note"], v["verifier_key"])
    same("text", text, v["text"])
    same("note", sign_note(verifier(v["verifier_key"])[0], bytes.fromhex(v["seed"]), text), v["note"])


def check_keeper_file(v):
    vault, active, roots, lines = key_file(v["slots"], bytes.fromhex(v["journal"]), v)
    same("vault", vault.hex(), v["vault"])
    same("lines", [line.hex() for line in lines], v["lines"])
    stated = {bytes.fromhex(root["id"]): root for root in v["roots"]}
    same("roots", sorted(stated), [root[0] for root in roots])
    for id_, epoch, activated, key in roots:
        root = stated[id_]
        same("root", (epoch, activated, id_ == active), (root["epoch"], root["activated"], root["activated"]))
        wrapped = bytes.fromhex(root["wrapped"])
        same("version", wrapped[0], 1)
        aad = b"customer-vault/1 keeper wrapped root" + vault + id_
        same("root key", open_(2, key, bytes(16), aad, wrapped[1:]).hex(), root["key"])


# A whole store


class Store:
    def __init__(self, v):
        self.rows = {bytes.fromhex(name): bytes.fromhex(row) for name, row in v["rows"].items()}
        self.left = set(self.rows)
        r = Reader(self.take(b"c"))
        same("format", r.bytes(), b"customer-vault/v1")
        self.vault, self.suite, self.height = r.take(16), r.u8(), r.u8()
        r.end()
        same("vault", self.vault.hex(), v["vault"])
        r = Reader(self.take(b"e"))
        same("version", r.u8(), 1)
        self.epoch = r.u64()
        same("root", r.take(16).hex(), v["root_id"])
        r.bytes()
        r.end()
        self.root = bytes.fromhex(v["root_key"])

    def take(self, name):
        self.left.discard(name)
        return self.rows[name]

    def below(self, prefix, length=None):
        return sorted(n for n in self.rows if n.startswith(prefix) and length in (None, len(n)))

    def whole(self, name, node_key, parent):
        row = Row(self.take(name))
        same(f"parent of {name}", (row.suite, row.parent), (self.suite, parent))
        return row.whole(node_key, self.vault, name), row.generation

    def under_root(self, name):
        return self.whole(name, self.root, self.epoch)[0]


def registry(data):
    r = Reader(data)
    same("version", r.u8(), 1)
    purposes, records = {}, {}
    for _ in range(r.varint()):
        number, label = r.u16(), r.text()
        purposes[number] = (label, r.u8(), r.varint(), r.text())
    for _ in range(r.varint()):
        label, _doc, fields = r.text(), r.text(), {}
        for _ in range(r.varint()):
            number, name, state = r.u16(), r.text(), r.u8()
            terms = None
            if state != 4:
                r.text(), r.u8(), r.flag()
                terms = [(r.u16(), r.u16(), r.u8()) for _ in range(r.varint())]
            fields[number] = (name, state, terms)
        records[label] = fields
    r.end()
    return purposes, records


def standing(data):
    r = Reader(data)
    same("version", r.u8(), 1)
    out = {"state": r.u64(), "held": None, "enrolments": []}
    if r.flag():
        out["held"] = (r.take(8), r.i64(), r.text())
    for _ in range(r.u16()):
        one = {"number": r.u16(), "serial": r.take(16), "enrolled": r.i64(), "forgotten": None, "purposes": {}}
        if r.flag():
            names = ("at", "due", "shredded", "reference", "commitment", "actor", "approver", "ground")
            read = (r.i64, r.u16, r.flag, lambda: r.take(16), lambda: r.take(32), r.text, r.text, r.text)
            one["forgotten"] = {name: f() for name, f in zip(names, read)}
        for _ in range(r.u16()):
            purpose, flags = r.u16(), r.u8()
            if flags > 63:
                raise malformed("flags")
            known = {"held": bool(flags & 8), "remade": bool(flags & 16)}
            if flags & 1:
                known["consent"] = (r.u32(), r.take(32), r.i64(), r.text(), r.u8(), r.text())
            if flags & 2:
                known["withdrawn"] = r.u16()
            if flags & 4:
                known["until"] = r.u16()
            if flags & 32:
                known["tickets"] = r.i64()
            one["purposes"][purpose] = known
        out["enrolments"].append(one)
    r.end()
    return out


def month_of(day):
    date = datetime(1970, 1, 1) + timedelta(days=day)
    return (date.year - 1970) * 12 + date.month - 1


def order_line(data):
    r = Reader(data)
    return r.u32(), r.i64(), r.take(3).decode(), r.rest().decode()


def items(data):
    r, found = Reader(data), []
    while r.more():
        found.append(r.bytes())
    return found


def ring(data):
    """The keys that can be changed: the suite of new seals, then four lists by number."""
    r = Reader(data)
    same("version of the ring", r.u8(), 1)
    suite, last, lists = r.u8(), r.u16(), []
    for _ in range(4):
        keys = {}
        for _ in range(r.u8()):
            number, _, key = r.u16(), r.i64(), r.take(32)
            assert max(keys, default=-1) < number <= last
            keys[number] = key
        lists.append(keys)
    r.end()
    return suite, lists


def check_vault(v):
    s = Store(v)
    lookup, index, journal_key = (s.under_root(b"k%d" % i) for i in (1, 3, 7))
    suite, (token_keys, blind_keys, seeds, former) = ring(s.under_root(b"k2"))
    same("suite of new seals", suite, s.suite)
    same("ring", [list(keys) for keys in (token_keys, blind_keys, seeds, former)], [[1], [2], [3], []])
    token_key, seed = token_keys[1], seeds[3]
    public = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    name, _, key = verifier(v["verifier_key"])
    same("public key", key.public_bytes_raw(), public)
    same("name", name, "customer-vault/" + v["vault"])

    r = Reader(s.under_root(b"k5"))
    same("settings", (r.u8(), r.u8(), r.u8()), (1, s.suite, s.height))
    same("more settings", (r.u32(), r.u16(), r.u16(), r.u32(), r.u16()), (1000, 7, 0, 366 * 86400, 7))
    r.end()
    purposes, records = registry(s.under_root(b"k6"))
    same("purposes", {n: p[:3] for n, p in purposes.items()}, {1: ("shipping", 1, 2), 2: ("newsletter", 2, 0), 3: ("invoicing", 3, 3)})
    both = [(1, 2, 1), (3, 3, 1)]
    same("fields", records["order"], {1: ("name", 1, both), 2: ("phone", 1, both[:1]), 3: ("lines", 1, both), 4: ("fax", 4, None)})

    # Calendar
    days_node, generation = s.whole(b"b", s.root, s.epoch)
    months = {n: s.whole(n, days_node, generation) for n in s.below(b"m")}
    days = {}
    for n in s.below(b"d"):
        day = int.from_bytes(n[1:], "big")
        days[day] = s.whole(n, *months[b"m" + u16(month_of(day))])[0]
    today = v["wall_ms"] // 86_400_000
    same("calendar", (min(days), max(days)), (today, max(days)))
    assert set(range(today, today + 3 + 35)) <= set(days)

    # Tree
    tags = {id_: prf(lookup, b"customer-vault/v1/tag" + id_.encode())[:16] for id_ in v["subjects"]}
    nodes = {b"": (s.root, s.epoch)}
    for level in range(1, s.height + 1):
        for n in s.below(b"n" + bytes([level])):
            nodes[n[2:]] = s.whole(n, *nodes[n[2:-1]])
    entries = {}
    for id_, tag in tags.items():
        digits = bytes(d for byte in tag for d in (byte >> 4, byte & 15))[: s.height]
        n = b"s" + digits + tag
        node_key, generation = nodes[digits]
        row = Row(s.take(n))
        same("parent of an entry", row.parent, generation)
        opened = row.open(node_key, s.vault, n)
        entries[id_] = (standing(opened.pop((1, 0, 0))), opened)
    alice, keys = entries["alice"]
    [enrolment] = alice["enrolments"]
    same("keys", sorted(keys), [(2, 1, 0), (3, 1, 1), (3, 1, 2), (3, 1, 3), (5, 1, 0)])
    same("notice", enrolment["purposes"][2]["consent"][1], H(b"We write once a month."))
    assert enrolment["purposes"][2]["withdrawn"] and alice["state"] == 1
    for gone in ("bob", "dave"):
        forgotten = entries[gone][0]["enrolments"][0]["forgotten"]
        assert forgotten["shredded"] and forgotten["reference"] == bytes(16) and not forgotten["actor"]
        same("moments", (forgotten["at"], entries[gone][0]["enrolments"][0]["enrolled"]), (0, 0))
        same("what the law keeps", sorted(entries[gone][1]), [(3, 1, 3), (5, 1, 0)])
    assert entries["carol"][0]["held"] and (4, 0, 0) in entries["carol"][1]

    # Records
    heads_key, records_key = expand(index, b"customer-vault/v1/record-row"), keys[5, 1, 0]
    name_key, sum_key = (expand(index, b"customer-vault/v1/record-" + x) for x in (b"name", b"head"))
    total, count = bytes(32), 0
    for order in v["orders"]:
        id_ = u64(order)
        n = b"v" + tags["alice"] + prf(name_key, tags["alice"] + u32(5) + b"order" + id_)[:16]
        row = Row(s.take(n))
        opened = row.open(records_key, s.vault, n)
        same("enrolment", row.generation, 1)
        same("name of the record", opened[1, 0, 0], counted(b"order") + id_)
        total = bytes(a ^ b for a, b in zip(total, prf(sum_key, n + u64(row.parent) + u64(row.generation))))
        count += 1
        if order == 7:
            same("sealed", opened[2, 0, 0].hex(), v["sealed"])
        ctx = context(s.vault, enrolment["serial"], "order", id_, 0)
        found = {}
        for cell in sealed_value(opened[2, 0, 0]):
            for purpose, day in cell.boxes:
                if day in days:
                    found.setdefault(purpose, {}).update(cell.open(ctx, purpose, days[day], keys[3, cell.generation, purpose]))
        lines = [order_line(line) for line in items(found[3][3])]
        same("for the books", (found[3][1], lines), (b"Alice Lee", [(2, 350, "EUR", "tea"), (1, 900, "EUR", "cup")]))
        same("for the parcel", (found[1][1], found[1][2], 2 in found[3]), (b"Alice Lee", b"+49301234567", False))
    n = b"u" + tags["alice"]
    r = Reader(Row(s.take(n)).whole(heads_key, s.vault, n))
    same("head of records", (r.u8(), r.u64(), r.u64(), r.take(32)), (1, count, count, total))

    # Holds
    s.take(b"g")
    shelves = s.below(b"h" + tags["carol"] + entries["carol"][0]["held"][0], 27)
    assert shelves
    for n in shelves:
        opened = Row(s.take(n)).open(entries["carol"][1][4, 0, 0], s.vault, n)
        same("shelves", sorted(opened), [(1, 1, 1), (1, 1, 2), (1, 1, 3)])

    # Journal
    lines = [s.take(b"j" + u64(i + 1)) for i in range(len(s.below(b"j")))]
    same("witness", [line.hex() for line in lines], v["lines"])
    fence, events = journal(journal_key, s.vault, lines)
    same("fence", s.take(b"f"), fence)
    forgot = [e[1] for e in events if e[0] == 2]
    same("forgotten", forgot, [tags["bob"], tags["dave"]])
    same("states", [e[2] for e in events if e[0] in (2, 5, 7)], [1, 1, 1, 1])

    # Log
    ends = {}
    for n in s.below(b"l"):
        lane, head, number = n[1:], lane_start(s.vault, n[1:]), 0
        for row in s.below(b"o" + lane):
            number += 1
            same("number", row[17:], u64(number))
            head = lane_next(head, number, s.take(row))
            log_entry(s.rows[row][32:])
        same("lane", s.take(n), b"\x01" + lane + u64(number) + head)
        ends[lane] = number
    number, note_hash = [e[1:] for e in events if e[0] == 16][-1]
    for i in range(1, number + 1):
        note, covered = s.take(b"a" + u64(i) + b"\x01"), heads(s.take(b"a" + u64(i) + b"\x02"))
        check_checkpoint(s.vault, v["verifier_key"], note.decode(), covered)
        for lane, at, head in covered:
            assert at <= ends[lane]
            if at:
                same("head of a checkpoint", s.rows[b"o" + lane + u64(at)][:32], head)
    same("checkpoint", H(note), note_hash)

    # Batches, roots that were left, due rows, tokens
    def ours(n):
        return proven(journal_key, s.vault, n, s.take(n))

    batches = {}
    for n in s.below(b"p"):
        kind, made, left, _ = phase(ours(n))
        same("batch", kind, 3)
        batches[n[1:]] = made, left
    same("ways", s.below(b"x"), [])
    for n in s.below(b"q"):
        r = ours(n)
        same("retired", (r.u8(), r.u64()), (1, int.from_bytes(n[1:], "big")))
        r.take(16), r.i64(), r.bytes(), r.end()
        assert int.from_bytes(n[1:], "big") < s.epoch
    settled = ours(b"S").u64()
    same("settled", settled, 1)
    for n in s.below(b"w"):
        s.take(n)
        assert n[3:] in tags.values()
    for n in s.below(b"t"):
        r = Reader(s.take(n))
        same("token", (r.u8(), r.u16()), (1, 1))
        actor(bytes([r.u8()]) + r.bytes())
        r.i64(), r.i64(), r.i64()
        same("key of the token", r.u16(), 1)
        r.end()

    # Certificates
    reference = bytes.fromhex(v["reference"])
    certificate = s.take(b"z" + reference).decode()
    same("certificate", certificate, v["certificate"])
    text = verify_note(certificate, v["verifier_key"]).split("\n")
    same("heading", text[0], f"customer-vault/{v['vault']}/erasure")
    said = [line.partition(": ")[::2] for line in text[1:-1]]
    same("lines", [a for a, _ in said], [
        "reference", "requester (SHA-256 commitment)", "forgotten", "by", "approved by", "ground", "method",
        "destroyed purposes", "kept by law or contract", "root epoch left", "root key destroyed", "unreadable after",
        "keeper", "log reference", "tickets given"] + ["not proven"] * 4)
    opening = bytes.fromhex(v["opening"])
    commitment = H(b"customer-vault/v1/requester" + opening + v["requester"].encode())
    same("commitment", (said[0][1], said[1][1]), (v["reference"], commitment.hex()))
    same("destroyed", said[7][1], "shipping, newsletter")
    assert re.fullmatch(r"invoicing until \d{4}-\d\d-\d\d", said[8][1]) and said[9][1].startswith("1 on ")
    for n in s.below(b"r"):
        r = Reader(Row(s.take(n)).whole(expand(index, b"customer-vault/v1/pending"), s.vault, n))
        version, reference = r.u8(), r.take(16)
        same("waiting", (version, reference), (2, n[1:]))
        made, left = batches[r.take(16)]
        assert left > settled and r.u32() < made
        r.take(32), r.i64(), r.text(), r.text(), r.text()
        same("to be destroyed", [r.text() for _ in range(r.u16())], ["shipping", "newsletter"])
        same("tickets", [r.text() for _ in range(r.u16())], [])
        while r.more():
            r.text(), r.u16()
    [n] = s.below(b"N")
    note = s.take(n).decode()
    same("expiry note", note, v["expiry_note"])
    text = verify_note(note, v["verifier_key"]).split("\n")
    same("heading", text[0], f"customer-vault/{v['vault']}/expiry")
    assert re.fullmatch(r"days \d{4}-\d\d-\d\d to \d{4}-\d\d-\d\d: \d+ keys destroyed", text[1])
    same("rows that the specification does not know", s.left, set())


KINDS_OF_VECTORS = {
    "shelf": check_shelf,
    "context": check_context,
    "cell": check_cell,
    "sealed": check_sealed,
    "values": check_values,
    "row": check_row,
    "token": check_token,
    "ticket": check_ticket,
    "journal": check_journal,
    "batch": check_batch,
    "log-lane": check_log_lane,
    "checkpoint": check_checkpoint_file,
    "note": check_note,
    "keeper-file": check_keeper_file,
    "vault": check_vault,
}


def main(names):
    folder = Path(__file__).parent
    files = [folder / f"{name}.json" for name in names] or sorted(folder.glob("*.json"))
    wrong = 0
    for file in files:
        vector = json.loads(file.read_text(encoding="utf-8"))
        try:
            KINDS_OF_VECTORS[vector["kind"]](vector)
            result = "opens"
        except Refused as why:
            result = why.args[0]
        except AssertionError as why:
            result = f"WRONG {why}"
        good = result == vector.get("result", "opens")
        wrong += not good
        print(f"{'ok   ' if good else 'WRONG'} {file.stem}: {result}")
    print(f"{len(files)} vectors, {wrong} wrong")
    return 1 if wrong or not files else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
