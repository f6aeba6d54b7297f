#!/usr/bin/env python3
"""Read a sample stream of ionmd.  Needs Python and nothing else.  usage: samples.py SOCKET KIND [CHANNEL...]"""

import json
import socket
import struct
import sys

HEADER = struct.Struct("<4sBBHQQIHBBII")  # docs/socket.md, samples


def connect(path):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    wire = sock.makefile("rwb")
    sock.close()  # the file keeps it open
    json.loads(wire.readline())  # hello
    return wire


def frames(path, kind, channels=()):
    """First the layout, then (type, flags, first case sample, rows or missing samples, cause, payload)."""
    params = {"kind": kind, "channels": list(channels)}
    request = {"jsonrpc": "2.0", "id": 1, "method": "stream.open", "params": params}
    with connect(path) as control, connect(path) as wire:
        control.write(json.dumps(request).encode() + b"\n")
        control.flush()
        answer = json.loads(control.readline())
        if "error" in answer:
            raise SystemExit(answer["error"]["message"])
        wire.write(json.dumps({"stream": answer["result"]["token"]}).encode() + b"\n")
        wire.flush()
        yield json.loads(wire.readline())
        while len(header := wire.read(HEADER.size)) == HEADER.size:
            magic, version, type, flags, _seq, first, n, _channels, _dtype, cause, size, _ = HEADER.unpack(header)
            if magic != b"IONS" or version != 1:
                raise SystemExit("this is no frame of protocol 1")
            yield type, flags, first, n, cause, wire.read(size)


if __name__ == "__main__":
    stream = frames(*sys.argv[1:3], sys.argv[3:])
    layout = next(stream)
    print(layout)
    for type, flags, first, n, cause, payload in stream:
        if type == 1:
            values = struct.unpack(f"<{len(payload) // 4}{layout['dtype'][1]}".replace("i4", "i"), payload)
            print(first, n, "rows", "muted" if flags & 1 else "", values[: len(layout["names"])])
        else:
            print(first, n, "missing" if type == 2 else "end", "cause", cause)
