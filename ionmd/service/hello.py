"""The first line on every connection: who answers, which protocol, what runs, what you may do."""

from __future__ import annotations

from ionmd.service.roles import Rights
from ionmd.service.rpc import notification_line
from ionmd.service.schema import PROTOCOL, Hello


def hello_line(
    version: str, boot_id: str, source: str, case_id: str | None, device_state: str, rights: Rights
) -> bytes:
    """Roles are sorted, so that a transcript is stable."""
    hello = Hello(
        protocol=PROTOCOL,
        server=f"ionmd {version}",
        boot_id=boot_id,
        source=source,
        case_id=case_id,
        device={"state": device_state},
        roles=sorted(rights.roles),
        rights=rights.why,
    )
    return notification_line("hello", hello)
