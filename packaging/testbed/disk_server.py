"""The process behind a forgetful disk: it serves it by NBD on one socket, and is told what befalls it on another.

Started by `testbed.disk`. It ends when its NBD client goes away, so that nobody has to remember it.
"""

import json
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from testbed import nbd
from testbed.forgetful_disk import ForgetfulDisk

NBD_SOCKET, CONTROL_SOCKET = "nbd.sock", "control.sock"
SECONDS_TO_CONNECT = 60


def main() -> None:
    """Serve the image of the first argument; the sockets go into the directory of the second one."""
    image, directory = map(Path, sys.argv[1:])
    disk = ForgetfulDisk(image)
    clients = _listen(directory / NBD_SOCKET)
    clients.settimeout(SECONDS_TO_CONNECT)
    masters = _listen(directory / CONTROL_SOCKET)
    client, _ = clients.accept()
    client.settimeout(None)
    threading.Thread(target=_obey_all, args=(masters, disk, client), daemon=True).start()
    nbd.serve(client, disk)
    disk.stop_recording()


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)  # of one whose power failed
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def _obey_all(masters: socket.socket, disk: ForgetfulDisk, client: socket.socket) -> None:
    while True:
        master, _ = masters.accept()
        with master, master.makefile("rw") as file:
            file.write(json.dumps(_obey(json.loads(file.readline()), disk, client)))


def _obey(order: dict[str, Any], disk: ForgetfulDisk, client: socket.socket) -> Any:
    what = order.pop("order")
    match what:
        case "fail_power":
            return disk.fail_power(order["seed"])
        case "let_go":
            client.shutdown(socket.SHUT_RDWR)
        case "break_sectors":
            for start, length in order["ranges"]:
                disk.break_sectors(start, length, reads=order["reads"], writes=order["writes"])
        case "be_read_only":
            disk.be_read_only()
        case "heal":
            disk.heal()
        case "record":
            disk.record(Path(order["directory"]), order["witness"] and Path(order["witness"]))
        case "stop_recording":
            disk.stop_recording()
        case "instant":
            return disk.instant()
    return None


if __name__ == "__main__":
    main()
