"""A program that adds messages: `writer.py COUNT SECONDS_AFTER_EACH`.

Prints a line when it is ready, begins when a line comes, and prints the seconds that all took, the bytes that it
wrote to disk, and the 99th percentile and the longest of one.
"""

import sys
import time
from pathlib import Path

from ivy.types.messages import DataMessageBody
from ivy.utils.messaging_agent import MessagingAgent


def _written() -> int:
    return int(Path("/proc/self/io").read_text().partition("\nwrite_bytes: ")[2].split()[0])


def main() -> None:
    count, pause = int(sys.argv[1]), float(sys.argv[2])
    agent = MessagingAgent()
    print(flush=True)
    sys.stdin.readline()
    each = []
    before, began = _written(), time.perf_counter()
    for number in range(count):
        start = time.perf_counter()
        agent.add_message(DataMessageBody(data={"live": number, "temperature": 20 + number / 7}))
        each.append(time.perf_counter() - start)
        if pause:
            time.sleep(pause)
    seconds = time.perf_counter() - began
    agent.teardown()
    print(seconds, _written() - before, sorted(each)[round(0.99 * (count - 1))], max(each))


if __name__ == "__main__":
    main()
