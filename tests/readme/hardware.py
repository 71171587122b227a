"""The hardware of four procedures on a node without: two serial ports, a GPIO chip that is a file, a thermometer.

Runs on a node, with Python and no more. What the CO2 sensor is told is kept.
"""

import os
import shutil
import termios
import time
import tty
from pathlib import Path

CO2_PORT, WIND_PORT = "/dev/ttyUSB1", "/dev/ttyUSB2"
CHIP = "/dev/gpiochip0"
"""Lines "NUMBER LEVEL", the last of which counts; see `tests.readme.lgpio`."""
THERMOMETER = "/mnt/1wire/28.0123456789AB/temperature"
STEADY = "/root/steady"
"""As long as there is none, the CO2 sensor says something else each time."""
TOLD = "/root/told"
"""What was said to it."""
MAINS = 22
AIR = 412.0


def main() -> None:
    """Measure for ever."""
    Path(THERMOMETER).parent.mkdir(parents=True)
    Path(THERMOMETER).write_text("23.5\n")
    Path(CHIP).write_text(f"{MAINS} 1\n")
    _give(CHIP, "gpio")
    co2, co2_inside = _plug_in(CO2_PORT)
    wind, wind_inside = _plug_in(WIND_PORT)
    number = 0
    while True:
        number += 1
        for inside in (co2_inside, wind_inside):  # as at a real port, what nobody reads is lost
            termios.tcflush(inside, termios.TCIFLUSH)
        unsteady = 0 if os.path.exists(STEADY) else 5 * (number % 2)
        os.write(co2, b"%.1f\r\n" % (AIR + unsteady))
        os.write(wind, b"Dm=%dD,Sm=3.4M,Pa=981.2H\r\n" % (number % 360))
        _listen(co2)
        time.sleep(0.25)


def _plug_in(port: str) -> tuple[int, int]:
    ours, theirs = os.openpty()
    tty.setraw(theirs)
    os.set_blocking(ours, False)
    _give(os.ttyname(theirs), "dialout")
    os.symlink(os.ttyname(theirs), port)
    return ours, theirs


def _give(path: str, group: str) -> None:
    shutil.chown(path, "root", group)
    os.chmod(path, 0o660)


def _listen(device: int) -> None:
    try:
        heard = os.read(device, 1000)
    except BlockingIOError:  # nothing was said
        return
    with open(TOLD, "ab") as told:
        told.write(heard)


if __name__ == "__main__":
    main()
