"""The thread for what may take long and nobody waits for: hashes, manifests, indexes, repairs of earlier cases.

In: jobs, one after another.  Always: at low priority (an hour of 64 inputs is 28 GB to hash); a job that fails with
OSError is told as `disk_manifest`, any other is logged, and the next one goes on.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable

import structlog

from ionmd.case.troubles import Troubles
from ionmd.errors import IonmdError

log = structlog.get_logger()


class DigestThread:
    def __init__(self, troubles: Troubles) -> None:
        self._troubles = troubles
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self.stopping = False
        self._thread = threading.Thread(target=self._loop, name="ionmd-digest", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, job: Callable[[], None]) -> None:
        self._jobs.put(job)

    def drain(self, deadline: float) -> bool:
        """Wait until every job is done; False at monotonic `deadline`."""
        while self._jobs.unfinished_tasks:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.002)
        return True

    def stop(self, timeout_s: float) -> None:
        self.stopping = True
        self._jobs.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _loop(self) -> None:
        try:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        except OSError as error:  # a sandbox may forbid it, and hashing goes on all the same
            log.warning("digest_priority_refused", error=str(error))
        while (job := self._jobs.get()) is not None:
            try:
                job()
            except OSError as error:
                self._troubles.tell("disk_manifest", True, "The manifest of a case cannot be written", str(error))
            except IonmdError as error:
                log.error("case_job_failed", error=str(error))
            except Exception:
                log.exception("case_job_crashed")  # the next job is another case
            self._jobs.task_done()
        self._jobs.task_done()
