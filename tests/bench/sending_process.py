"""The sender in a process of its own: says ready, waits for go, tells its result, waits for end.

python tests/bench/sending_process.py '{"port": 11112, "instances": 512, "associations": 4}'
"""

from __future__ import annotations

import json
import statistics
import sys
import threading
import time

from sending import LARGEST_PDU, Proposal, Sender
from sent_images import instances_of


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(given: dict[str, object]) -> None:
    proposal = Proposal(
        calling_ae=given.get("calling_ae", "BENCH"),
        called_ae=given.get("called_ae", "RECEIVER"),
        max_pdu=given.get("max_pdu", LARGEST_PDU),
    )
    count, associations = given["instances"], given.get("associations", 1)
    modality = given.get("modality", "CT")
    work = list(enumerate(instances_of(count, first=given.get("first", 0), Modality=modality)))
    senders = [Sender(given["port"], work[i::associations], proposal) for i in range(associations)]
    say("ready")
    sys.stdin.readline()
    threads = [threading.Thread(target=one.run) for one in senders]
    began_at = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - began_at
    waits_ms = sorted(wait * 1000 for one in senders for wait in one.waits_s)
    result = {
        "seconds": seconds,
        "answers": len(waits_ms),
        "failures": sum(one.failures for one in senders),
        "median_wait_ms": statistics.median(waits_ms) if waits_ms else 0.0,
        "p99_wait_ms": waits_ms[int(len(waits_ms) * 0.99)] if waits_ms else 0.0,
    }
    say(json.dumps(result))
    sys.stdin.readline()
    for one in senders:
        one.release()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
