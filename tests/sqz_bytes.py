"""Takes `.sqz` files apart and puts them together with valid checksums, so that attacks reach what lies inside."""

import hashlib
import json
import struct
import zlib

SIGNATURE = b"\x89SQZ\r\n\x1a\n"


def chunk(kind, data):
    return struct.pack("<I4s", len(data), kind) + data + struct.pack("<I", zlib.crc32(kind + data))


def split(data):
    """List the (kind, data) of every chunk but `HASH`."""
    chunks, offset = [], len(SIGNATURE)
    while offset < len(data):
        length, kind = struct.unpack_from("<I4s", data, offset)
        chunks.append((kind, data[offset + 8 : offset + 8 + length]))
        offset += length + 12
    assert chunks.pop()[0] == b"HASH"
    return chunks


def join(chunks):
    """Build a file of these chunks, with valid CRCs and a valid SHA-256."""
    data = SIGNATURE + b"".join(chunk(kind, body) for kind, body in chunks)
    return data + chunk(b"HASH", hashlib.sha256(data).digest())


def with_chunk(data, kind, body):
    """Replace the data of one chunk."""
    chunks = split(data)
    assert kind in dict(chunks)
    return join([(name, body if name == kind else old) for name, old in chunks])


def with_meta(data, meta):
    """Replace the metadata, given as JSON text, encoded text or plain data."""
    text = meta if isinstance(meta, (str, bytes)) else json.dumps(meta)
    text = text if isinstance(text, bytes) else text.encode()
    return with_chunk(data, b"META", zlib.compress(text))


def meta_of(data):
    return json.loads(zlib.decompress(dict(split(data))[b"META"]))
