"""A run to be ended by a test: ``python held_run.py ENDING KEY=VALUE…``; it says "ready" when its workers compute."""

import json
import signal
import sys
import time

from segment_slide.cluster.connect import connect
from segment_slide.cluster.spec import ClusterSpec


def terminate(*_):
    """As the command line does on SIGTERM."""
    raise SystemExit(143)


def say_ready():
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def main(ending: str, values: str) -> None:
    signal.signal(signal.SIGTERM, terminate)
    if ending == "signal-while-waiting":
        say_ready()
    with connect(ClusterSpec(**json.loads(values))) as client:
        assert client.submit(sum, [1, 2]).result() == 3
        busy = client.map(time.sleep, [600] * 4, pure=False)
        say_ready()
        if ending == "success":
            return
        if ending == "exception":
            raise KeyError("the body failed")
        client.gather(busy)


if __name__ == "__main__":
    main(*sys.argv[1:])
