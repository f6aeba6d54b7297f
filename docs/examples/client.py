#!/usr/bin/env python3
"""Follow the alarms of ionmd, missing none.  Needs Python and nothing else.  usage: client.py SOCKET"""

import json
import socket
import sys
import time


def say(wire, id, method, **params):
    wire.write(json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode() + b"\n")
    wire.flush()


def follow(path, seen):
    """Events of one connection.  `seen` is what we know, {"boot_id", "seq"}: empty at first, kept up to date here."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(path)
        with sock.makefile("rwb") as wire:
            hello = json.loads(wire.readline())
            if hello["method"] != "hello" or hello["params"]["protocol"][0] != 1:
                raise SystemExit(f"this client speaks protocol 1, the server said {hello}")
            say(wire, 1, "subscribe", topics=["alarm"], **({"resume_from": dict(seen)} if seen else {}))
            for line in wire:
                message = json.loads(line)
                if message.get("method") == "event":
                    event = message["params"]
                    seen["seq"] = {"alarm": event["seq"]}
                    yield event
                elif message.get("method") == "goodbye":
                    print("cut:", message["params"]["reason"], file=sys.stderr)
                elif "error" in message and message["error"]["code"] == -32001:  # missed for good: begin with what is
                    data = message["error"]["data"]
                    seen.update(boot_id=data["boot_id"], seq={"alarm": data["seq"]["alarm"]})
                    print("missed some; open now:", data["snapshot"]["status"].get("alarms", []), file=sys.stderr)
                    say(wire, 2, "subscribe", topics=["alarm"], resume_from=dict(seen))
                elif "error" in message:
                    raise SystemExit(message["error"]["message"])
                elif not seen:  # the answer to the first subscribe
                    seen.update(boot_id=message["result"]["boot_id"], seq=message["result"]["seq"])


if __name__ == "__main__":
    known = {}
    while True:
        try:
            for event in follow(sys.argv[1], known):
                alarm = event["data"]
                print(event["sample"], alarm["priority"], alarm["state"], alarm["sentence"], flush=True)
        except OSError as error:
            print("no daemon:", error, file=sys.stderr)
        time.sleep(1.0)
