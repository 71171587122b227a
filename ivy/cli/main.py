"""The arguments of the `ivy` command. Each command's work is in a module of its own, loaded when it is wanted."""

import argparse
import importlib
import io
import math
import os
import re
import signal
import sys
from typing import Any, NoReturn, get_args

from ivy import constants
from ivy.cli import output
from ivy.utils.host import rights

INTERNAL = ("report-exit", "install", "call", "check-updater", "salvage", "link", "tell", "report-registration")
"""Commands of units and package scripts, which are not listed."""

_UNKNOWN = re.compile(
    r"argument COMMAND: invalid choice: ['\"](?P<name>.*)['\"] \(choose from (?P<all>.*)\)", re.DOTALL
)
"""What the parser says of one."""

_TIMES = "2026-11-20, 2026-11-20T14:30 (UTC) or -2h"

CARD = "/boot/firmware"
"""Where the partition is that any desk can write, on a Raspberry Pi."""

_READER_GONE = 128 + signal.SIGPIPE
"""As a shell has it of programs that know nothing of this."""


def main() -> None:
    """Run the command; exits with a status for scripts."""
    _open_closed_streams()
    prepare_output()
    try:
        try:
            sys.exit(_run_command())
        finally:
            print(end="", flush=True)  # here, and not when Python ends, where nobody could be silent about it
    except BrokenPipeError:  # the reader of our output had enough
        _give_up_output()
        sys.exit(_READER_GONE)
    except (KeyboardInterrupt, EOFError):  # Ctrl-C, and Ctrl-D at a question
        sys.exit(130)
    except (OSError, RuntimeError, LookupError) as error:
        try:
            sys.stdout.flush()
        except OSError:  # it is what has failed, as on a full disk; Python would try it again, and exit with 120
            _give_up_output()
        refuse(output.plain(f"{rights.why_not_permitted(error) or error}"), 1)


def _open_closed_streams() -> None:
    """Have all three, also where the caller has closed some, as by `>&-`: other files would get their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode, encoding="utf-8"))


def _give_up_output() -> None:
    """What is still to be printed goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _run_command() -> int | None:
    """Returns its exit status."""
    arguments = parser().parse_args(_join_times(sys.argv[1:]))
    module, _, function = arguments.work.partition(":")
    # Loaded only now: a service must not carry what another command needs.
    work = getattr(importlib.import_module(f"ivy.cli.{module}"), function)
    data = getattr(arguments, "data", None)
    if data is not None:
        from ivy.utils.storage import elsewhere

        arguments.data = elsewhere.find(data)
    if arguments.only_reads:
        rights.give_up(constants.IVY_DATA_DIR if data is None else arguments.data.read_as)
    with output.plain_streams():
        status: int | None = work(arguments)
        return status


def refuse(complaint: str, status: int = 2) -> NoReturn:
    """End the command because of what it was given."""
    print(f"ivy: {complaint}", file=sys.stderr)
    sys.exit(status)


def refuse_config(error: ValueError, before: str = "") -> NoReturn:
    """End the command because of a config that cannot be used, or that this user may not read."""
    if (why := rights.why_not_permitted(error)) is not None:
        refuse(why, 1)
    refuse(f"{before}{error}", constants.EXIT_CONFIG_ERROR)


def prepare_output(*, for_programs: bool = False) -> None:
    """Print for programs in UTF-8; for people what the locale has, and `?` for the rest."""
    stream = getattr(sys.stdout, "stream", sys.stdout)
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="replace", encoding="utf-8" if for_programs else None)
    if for_programs:
        output.exactly_to_files()


class _Parser(argparse.ArgumentParser):
    """Names the nearest command where there is none of a name, not all that there are, internal ones too."""

    def error(self, message: str) -> NoReturn:
        if unknown := _UNKNOWN.fullmatch(message):
            import difflib  # not at the top: hardly ever wanted

            names = [name for name in re.findall(r"[a-z-]+", unknown["all"]) if name not in INTERNAL]
            near = difflib.get_close_matches(unknown["name"], names, n=1)
            hint = f"Did you mean `{self.prog} {near[0]}`?" if near else f"For all commands: {self.prog} --help"
            message = f"there is no command '{unknown['name']}'. {hint}"
        super().error(message)


def parser() -> argparse.ArgumentParser:
    """What the command understands."""
    parser = _Parser(
        prog="ivy",
        usage="ivy [-h | --version] COMMAND ...",
        description="The software of an autonomous sensor node. Exit statuses and more: man ivy",
        # So wide that each command has one line, and all fit on a screen.
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=16),
    )
    version = f"ivy {constants.VERSION.as_identifier()}"
    parser.add_argument("--version", action="version", version=version, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(metavar="COMMAND", required=True, prog="ivy")
    _add_node_commands(commands)
    _add_archive_commands(commands)
    _add_config_commands(commands)
    _add_update_commands(commands)
    _add_internal_commands(commands)
    return parser


def _add(commands: Any, name: str, work: str, text: str, *, only_reads: bool = False) -> argparse.ArgumentParser:
    """Add a command. One that only reads, or writes what is the services', does so without root's rights."""
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.set_defaults(work=work, only_reads=only_reads)
    return command


def _add_node_commands(commands: Any) -> None:
    text = "show whether the node is well: services, queue, backend, disk"
    status = _add(commands, "status", "status:show", text, only_reads=True)
    status.add_argument("--json", action="store_true", help="print JSON")
    _add(commands, "start", "services:start", "start all services, as release and config want them")
    _add(commands, "stop", "services:stop", "stop all services; what is queued is sent first")
    text = "stop and start all services, e.g. after a change of the config"
    restart = _add(commands, "restart", "services:restart", text)
    _add_now(restart)
    text = "leave all as it is if they take longer, e.g. 10min; exits with 75 then"
    restart.add_argument("--wait", metavar="SPAN", type=_span, help=text)
    text = "keep others from changing or restarting this node"
    hold = _add(commands, "hold", "hold:run", text)
    hold.add_argument("reason", nargs="?", metavar="REASON", help="for whoever wonders; without one: show the hold")
    end = hold.add_mutually_exclusive_group()
    end.add_argument("--until", metavar="TIME", type=_moment, help="default: a week")
    end.add_argument("--for", dest="seconds", metavar="SPAN", type=_span, help="e.g. 90min, 12h, 3d, or seconds")
    end.add_argument("--end", action="store_true", help="end it, and start what --stop has stopped")
    hold.add_argument("--stop", action="store_true", help="no procedure samples meanwhile")
    hold.add_argument("--json", action="store_true", help="show it as JSON")
    _add(commands, "is-running", "services:is_running", "exit with 0 if the services run, with 1 if not")
    logs = _add(commands, "logs", "services:logs", "show the journal of all services, or of one")
    logs.add_argument("name", nargs="?", metavar="NAME", help="e.g. tenta or system-checks")
    logs.add_argument("-n", "--lines", metavar="COUNT", type=_count, help="only the last so many lines")
    logs.add_argument("--since", metavar="TIME", type=_moment, help=_TIMES)
    logs.add_argument("-f", "--follow", action="store_true", help="go on showing what comes")
    text = "show what waits to be sent, and what was dropped"
    queue = _add(commands, "queue", "status:show_queue", text, only_reads=True)
    queue.add_argument("--json", action="store_true", help="print JSON")
    _add_data(queue)
    doctor = _add(commands, "doctor", "doctor.command:show", "check what nodes fail on, and say what to do")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    text = "write all that support needs into one file, without secrets"
    bundle = _add(commands, "bundle", "bundle:make", text)
    bundle.add_argument("file", nargs="?", metavar="FILE", help="default: ivy-bundle-HOST-TIME.tar.gz, here")
    run = _add(commands, "run", "services:run", "run one service in the foreground, as its unit does")
    run.add_argument("name", metavar="NAME", help="e.g. system-checks, tenta or thingsboard")
    run.add_argument("--make-safe", action="store_true", help="only do what a procedure has for its hardware's end")
    _add(commands, "info", "services:info", "show version and places on disk")


def _add_archive_commands(commands: Any) -> None:
    text = "show or export the message archive"
    messages = _add(commands, "messages", "archive.messages:show", text, only_reads=True)
    messages.add_argument("--date", metavar="YYYY-MM-DD", help="of this UTC day; default: today")
    _add_times(messages)
    messages.add_argument("--kind", choices=("data", "log", "config"), help="only these")
    messages.add_argument("--key", metavar="KEY", nargs="+", default=[], help="only these data, e.g. 'temp*'")
    messages.add_argument("--follow", action="store_true", help="go on showing what comes")
    messages.add_argument("--json", action="store_true", help="print one JSON object per line")
    messages.add_argument("--csv", action="store_true", help="print a table with a column per key")
    _add_data(messages)
    text = "send messages of the archive again, when nothing else waits"
    resend = _add(commands, "resend", "archive.resend:run", text, only_reads=True)
    _add_times(resend)
    resend.add_argument("--kind", choices=("data", "log", "config"), help="only these")
    resend.add_argument("--key", metavar="KEY", nargs="+", default=[], help="only data with such, e.g. 'temp*'")
    resend.add_argument("--dry-run", action="store_true", help="only count them")
    resend.add_argument("--cancel", action="store_true", help="end what was asked for")
    plot = _add(commands, "plot", "plot.command:show", "draw what was sampled, here or for a report")
    plot.add_argument("key", metavar="KEY", nargs="+", help="of the data, e.g. 'temp*'")
    _add_times(plot)
    for kind in ("svg", "png"):
        plot.add_argument(f"--{kind}", metavar="FILE", help="draw into this file instead")
    _add_data(plot)


def _add_data(command: argparse.ArgumentParser) -> None:
    text = "of another node, such as the root of its card; nothing is written there"
    command.add_argument("--data", metavar="DIRECTORY", help=text)


def _add_times(command: argparse.ArgumentParser) -> None:
    command.add_argument("--since", metavar="TIME", type=_moment, help=_TIMES)
    command.add_argument("--until", metavar="TIME", type=_moment, help="the same; what is sampled then is left out")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"must be a number, not {text!r}")
    return int(text)


def _moment(text: str) -> float:
    from ivy.cli.archive import selection  # as above

    return selection.parse_time(text)


def _span(text: str) -> float:
    from ivy.cli.archive import selection  # as above

    return selection.parse_span(text)


def _join_times(arguments: list[str]) -> list[str]:
    """Make `--since -2h` one argument: the parser would take -2h for an option."""
    joined: list[str] = []
    for argument in arguments:
        if joined and joined[-1] in ("--since", "--until") and argument.startswith("-"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _add_config_commands(commands: Any) -> None:
    text = "show, check, explain or change the config"
    config = commands.add_parser("config", help=text, description=text).add_subparsers(
        metavar="COMMAND", required=True
    )
    text = "print the config of the current release, without its secrets"
    _add(config, "show", "config:show", text, only_reads=True)
    text = "print one field or section of that, as JSON"
    get = _add(config, "get", "config:get", text, only_reads=True)
    get.add_argument("path", metavar="PATH", help="e.g. backend.mqtt_connection.protocol")
    validate = _add(config, "validate", "config:validate", "check a config; exit with 78 if it is not usable")
    validate.add_argument("file", nargs="?", metavar="FILE", help="default: the config of the current release")
    _add(config, "schema", "config:schema", "print the JSON schema of the config", only_reads=True)
    apply = _add(config, "apply", "update:apply", "use a config; it is undone if the services do not run well")
    apply.add_argument("file", metavar="FILE", help="the config; - reads standard input")
    text = "put the files in there, such as certificates, into /etc/ivy, and back with the config"
    apply.add_argument("--files", metavar="DIRECTORY", help=text)
    _add_haste(apply)
    _add_yes(apply)
    field = _add(config, "set", "update:set_field", "change one field of the config, and use it as apply does")
    field.add_argument("path", metavar="PATH", help="e.g. backend.mqtt_connection.protocol")
    field.add_argument("value", metavar="VALUE", help="JSON, or a text; - reads standard input, as for secrets")
    _add_haste(field)
    _add_yes(field)
    edit = _add(config, "edit", "update:edit", "change the config in an editor, and use it as apply does")
    _add_haste(edit)
    _add_yes(edit)


def _add_update_commands(commands: Any) -> None:
    setup = _add(commands, "setup", "setup:run", "connect this node to a backend")
    setup.add_argument("--provider", choices=get_args(constants.Provider), help="the platform")
    setup.add_argument("--identifier", metavar="NAME", help="the node's name there; in Tenta, the sensor's UUID")
    setup.add_argument("--host", metavar="HOST", help="the broker")
    setup.add_argument("--port", metavar="PORT", help="default: 8883 with TLS, 1883 without")
    setup.add_argument("--tls", choices=["yes", "no"], help="whether the connection is encrypted")
    setup.add_argument("--ca-file", metavar="FILE", help="authorities to trust; default: the system's")
    setup.add_argument("--client-id", metavar="ID", help="default: the node's name")
    setup.add_argument("--username", metavar="NAME", help="or the access token")
    setup.add_argument("--password-file", metavar="FILE", help="- reads standard input")
    setup.add_argument("--provision-key", metavar="KEY", help="register at ThingsBoard, by this device profile")
    setup.add_argument("--provision-secret-file", metavar="FILE", help="that key's secret; - reads standard input")
    setup.add_argument("--provision-file", metavar="FILE", help="register as it says, and remove it")
    setup.add_argument("--no-test", action="store_true", help="do not try to log in first")
    _add_haste(setup)
    _add_yes(setup)
    update = _add(commands, "update", "update:update", "use another version; it is undone if it is not well")
    update.add_argument("version", metavar="VERSION", help="e.g. 1.2.3: the tag v1.2.3 of updater.repository")
    _add_haste(update)
    text = "use the version and config from before the last change"
    rollback = _add(commands, "rollback", "update:rollback", text)
    _add_haste(rollback)
    _add_yes(rollback)
    export = _add(commands, "export", "board.leave:run", "write all that makes this node into a file")
    export.add_argument("file", metavar="FILE", help="a tar file; - writes standard output")
    export.add_argument(
        "--secrets", action="store_true", help="with passwords and keys: whoever has the file is the node"
    )
    arrive = _add(commands, "import", "board.arrive:run", "let this board be a node that was on another one")
    arrive.add_argument("file", metavar="FILE", nargs="?", help="of ivy export; - reads standard input")
    text = "a dead board's card, instead of a file"
    arrive.add_argument("--from", metavar="DIRECTORY", dest="card", help=text)
    arrive.add_argument("--yes", action="store_true", help="even if this node has another name, and sends")
    text = "take in the files that somebody wrote onto the card at a desk"
    take_in = _add(commands, "take-in", "first_boot.command:run", text)
    take_in.add_argument("--files-only", action="store_true", help="of ivy.json only the name of the host")
    take_in.add_argument("directory", metavar="DIRECTORY", nargs="?", default=CARD, help=f"default: {CARD}")
    text = "let a cloned card be new: no name, secrets, queue, archive"
    forget = _add(commands, "forget-node", "forget:run", text)
    forget.add_argument("--machine", action="store_true", help="another number, name and SSH keys at the next boot")
    forget.add_argument("--yes", action="store_true", help="do not ask")
    text = "show versions on disk, and what became of offers"
    releases = _add(commands, "releases", "releases:show", text)  # all that it reads is root's
    releases.add_argument("--json", action="store_true", help="print JSON")
    text = "until the package's version was tried; exit with 1 and the reason if it does not run"
    releases.add_argument("--wait", metavar="SPAN", nargs="?", type=_span, const=math.inf, help=text)


def _add_haste(command: argparse.ArgumentParser) -> None:
    """For commands that wait for a decision."""
    _add_now(command)
    text = "give up waiting after so long, e.g. 10min; exits with 75 then"
    command.add_argument("--wait", metavar="SPAN", type=_span, help=text)


def _add_now(command: argparse.ArgumentParser) -> None:
    """For commands that restart procedures."""
    command.add_argument("--now", action="store_true", help="do not wait for procedures in the middle of something")


def _add_yes(command: argparse.ArgumentParser) -> None:
    """For commands that may give the node another name."""
    text = "if the name changes, send what waits under the old one as the new one"
    command.add_argument("--yes", action="store_true", help=text)


def _add_internal_commands(commands: Any) -> None:
    """What units and package scripts call. Without a help text, they are not listed."""
    report = commands.add_parser("report-exit", description="Queue a message about the end of a service.")
    report.add_argument("end", metavar="UNIT:END")
    report.set_defaults(work="internal:report_exit", only_reads=True)
    install = commands.add_parser("install", description="Make a release of what the package brought.")
    install.add_argument("--older", action="store_true", help="also where a newer version runs")
    install.set_defaults(work="internal:install", only_reads=False)
    call = commands.add_parser("call", description="Do what an operator asked for by a remote call.")
    call.add_argument("method")
    call.set_defaults(work="call:run", only_reads=False)
    check = commands.add_parser("check-updater", description="Exit with 0 if this version could update itself.")
    check.set_defaults(work="internal:check_updater", only_reads=False)
    salvage = commands.add_parser("salvage", description="Queue again what can be read of a damaged queue.")
    salvage.set_defaults(work="internal:salvage", only_reads=True)
    link = commands.add_parser("link", description="Print whether the link is away, and how long it may be.")
    link.set_defaults(work="internal:link", only_reads=True)
    tell = commands.add_parser("tell", description="Queue a warning for the operator, with details from stdin.")
    tell.add_argument("subject", metavar="TEXT")
    tell.set_defaults(work="internal:tell", only_reads=True)
    report = commands.add_parser("report-registration", description="Say on the card how the registration ended.")
    report.add_argument("directory", metavar="DIRECTORY")
    report.set_defaults(work="first_boot.command:report_registration", only_reads=False)
