"""A wait of the client ends in time for a signal that came just before it."""

import socket
import threading

from ionmd import client


def test_no_wait_is_endless(tmp_path, monkeypatch):
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "s"))
    server.listen()
    wire = client._Wire(tmp_path / "s", 1.0)
    peer, _ = server.accept()
    waits, real = [], client.select.select

    def seen(r, w, x, timeout):
        waits.append(timeout)
        if len(waits) == 3:
            threading.Thread(target=peer.sendall, args=(b"{}\n",)).start()
            return real(r, w, x, timeout)
        return [], [], []

    monkeypatch.setattr(client.select, "select", seen)
    assert wire.line(None) == b"{}"
    assert len(waits) >= 3 and all(t is not None and t <= client.LOOK_S for t in waits)
    wire.close()
    peer.close()
    server.close()
