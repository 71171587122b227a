"""As much of python3-lgpio as four procedures call, for a chip that is a file, see `tests.readme.hardware`."""

import os


def gpiochip_open(number: int) -> int:
    return os.open(f"/dev/gpiochip{number}", os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)


def gpiochip_close(handle: int) -> None:
    os.close(handle)


def gpio_claim_output(handle: int, line: int, level: int = 0) -> None:
    gpio_write(handle, line, level)


def gpio_claim_input(handle: int, line: int) -> None:
    gpio_read(handle, line)


def gpio_write(handle: int, line: int, level: int) -> None:
    os.write(handle, f"{line} {level}\n".encode())


def gpio_read(handle: int, line: int) -> int:
    lines = os.pread(handle, os.fstat(handle).st_size, 0).split(b"\n")
    return int(next(each for each in reversed(lines) if each.startswith(b"%d " % line)).split()[1])


def tx_pwm(handle: int, line: int, frequency: float, duty: float) -> None:
    gpio_write(handle, line, round(duty))
