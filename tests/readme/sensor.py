"""A thermometer on a serial port that is none: prints a line each second. Runs on a node, with Python and no more.

As at a real port, what nobody reads is lost.
"""

import os
import shutil
import termios
import time
import tty

PORT = "/dev/ttyUSB0"


def main() -> None:
    """Measure for ever."""
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    name = os.ttyname(theirs)
    shutil.chown(name, "root", "dialout")
    os.chmod(name, 0o660)
    os.symlink(name, PORT)
    while True:
        termios.tcflush(theirs, termios.TCIFLUSH)
        os.write(ours, b"21.5\n")
        time.sleep(1)


if __name__ == "__main__":
    main()
