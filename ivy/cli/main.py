"""The arguments of the `ivy` command. Each command's work is in a module of its own, loaded when it is wanted."""

import argparse
import importlib
import io
import os
import sys
from typing import Any, NoReturn

from ivy import constants


def main() -> None:
    """Run the command; exits with a status for scripts."""
    prepare_output()
    arguments = parser().parse_args(_join_times(sys.argv[1:]))
    module, _, function = arguments.work.partition(":")
    # Loaded only now: a service must not carry what another command needs.
    work = getattr(importlib.import_module(f"ivy.cli.{module}"), function)
    try:
        sys.exit(work(arguments))
    except BrokenPipeError:  # the reader of our output had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(1)
    except (KeyboardInterrupt, EOFError):  # Ctrl-C, and Ctrl-D at a question
        sys.exit(130)
    except (OSError, RuntimeError, LookupError) as error:
        sys.exit(f"ivy: {error}")


def refuse(complaint: str, status: int = 2) -> NoReturn:
    """End the command because of what it was given."""
    print(f"ivy: {complaint}", file=sys.stderr)
    sys.exit(status)


def prepare_output(*, for_programs: bool = False) -> None:
    """Print for programs in UTF-8; for people what the locale has, and `?` for the rest."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace", encoding="utf-8" if for_programs else None)


def parser() -> argparse.ArgumentParser:
    """What the command understands."""
    parser = argparse.ArgumentParser(
        prog="ivy",
        usage="ivy [-h | --version] COMMAND ...",
        description="The software of an autonomous sensor node. Exit statuses and more: man ivy",
        # So wide that each command has one line, and all fit on a screen.
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=16),
    )
    version = f"ivy {constants.VERSION.as_identifier()}"
    parser.add_argument("--version", action="version", version=version, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_node_commands(commands)
    _add_archive_commands(commands)
    _add_config_commands(commands)
    _add_update_commands(commands)
    _add_internal_commands(commands)
    return parser


def _add(commands: Any, name: str, work: str, text: str) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    command.set_defaults(work=work)
    return command


def _add_node_commands(commands: Any) -> None:
    status = _add(
        commands, "status", "status:show", "show whether the node is well: services, queue, backend, disk"
    )
    status.add_argument("--json", action="store_true", help="print JSON")
    _add(commands, "start", "services:start", "start all services, as release and config want them")
    _add(commands, "stop", "services:stop", "stop all services; what is queued is sent first")
    _add(commands, "restart", "services:restart", "stop and start all services, e.g. after a change of the config")
    _add(commands, "is-running", "services:is_running", "exit with 0 if the services run, with 1 if not")
    logs = _add(commands, "logs", "services:logs", "show the journal of all services, or of one")
    logs.add_argument("name", nargs="?", metavar="NAME", help="e.g. tenta or system-checks")
    logs.add_argument("-f", "--follow", action="store_true", help="go on showing what comes")
    queue = _add(commands, "queue", "status:show_queue", "show what waits to be sent, and what was dropped")
    queue.add_argument("--json", action="store_true", help="print JSON")
    doctor = _add(commands, "doctor", "doctor.command:show", "check what nodes fail on, and say what to do")
    doctor.add_argument("--json", action="store_true", help="print JSON")
    run = _add(commands, "run", "services:run", "run one service in the foreground, as its unit does")
    run.add_argument("name", metavar="NAME", help="e.g. system-checks, tenta or thingsboard")
    _add(commands, "info", "services:info", "show version and places on disk")


def _add_archive_commands(commands: Any) -> None:
    messages = _add(commands, "messages", "archive.messages:show", "show or export the message archive")
    messages.add_argument("--date", metavar="YYYY-MM-DD", help="of this UTC day; default: today")
    _add_times(messages)
    messages.add_argument("--kind", choices=("data", "log", "config"), help="only these")
    messages.add_argument("--key", metavar="KEY", nargs="+", default=[], help="only these data, e.g. 'temp*'")
    messages.add_argument("--follow", action="store_true", help="go on showing what comes")
    messages.add_argument("--json", action="store_true", help="print one JSON object per line")
    messages.add_argument("--csv", action="store_true", help="print a table with a column per key")
    plot = _add(commands, "plot", "plot.command:show", "draw what was sampled, here or for a report")
    plot.add_argument("key", metavar="KEY", nargs="+", help="of the data, e.g. 'temp*'")
    _add_times(plot)
    for kind in ("svg", "png"):
        plot.add_argument(f"--{kind}", metavar="FILE", help="draw into this file instead")


def _add_times(command: argparse.ArgumentParser) -> None:
    command.add_argument("--since", metavar="TIME", type=_moment, help="2026-11-20, 2026-11-20T14:30 (UTC) or -2h")
    command.add_argument("--until", metavar="TIME", type=_moment, help="the same; what is sampled then is left out")


def _moment(text: str) -> float:
    from ivy.cli.archive import selection  # as above

    return selection.parse_time(text)


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
    _add(config, "show", "config:show", "print the config of the current release, without its secrets")
    validate = _add(config, "validate", "config:validate", "check a config; exit with 78 if it is not usable")
    validate.add_argument("file", nargs="?", metavar="FILE", help="default: the config of the current release")
    _add(config, "schema", "config:schema", "print the JSON schema of the config")
    apply = _add(config, "apply", "update:apply", "use a config; it is undone if the services do not run well")
    apply.add_argument("file", metavar="FILE", help="the config; - reads standard input")
    _add(config, "edit", "update:edit", "change the config in an editor, and use it as apply does")


def _add_update_commands(commands: Any) -> None:
    setup = _add(commands, "setup", "setup:run", "connect this node to a backend")
    setup.add_argument("--provider", choices=["tenta", "thingsboard"], help="the platform")
    setup.add_argument("--identifier", metavar="NAME", help="the node's name there; in Tenta, the sensor's UUID")
    setup.add_argument("--host", metavar="HOST", help="the broker")
    setup.add_argument("--port", metavar="PORT", help="default: 8883 with TLS, 1883 without")
    setup.add_argument("--tls", choices=["yes", "no"], help="whether the connection is encrypted")
    setup.add_argument("--ca-file", metavar="FILE", help="authorities to trust; default: the system's")
    setup.add_argument("--client-id", metavar="ID", help="default: the node's name")
    setup.add_argument("--username", metavar="NAME", help="or the access token")
    setup.add_argument("--password-file", metavar="FILE", help="- reads standard input")
    setup.add_argument("--no-test", action="store_true", help="do not try to log in first")
    update = _add(commands, "update", "update:update", "use another version; it is undone if it is not well")
    update.add_argument("version", metavar="VERSION", help="e.g. 1.2.3: the tag v1.2.3 of updater.repository")
    _add(commands, "rollback", "update:rollback", "use the version and config from before the last change")
    releases = _add(commands, "releases", "releases:show", "show versions on disk, and what became of offers")
    releases.add_argument("--json", action="store_true", help="print JSON")


def _add_internal_commands(commands: Any) -> None:
    """What units and package scripts call. Without a help text, they are not listed."""
    report = commands.add_parser("report-exit", description="Queue a message about the end of a service.")
    report.add_argument("end", metavar="UNIT:RESULT:CODE:STATUS")
    report.set_defaults(work="internal:report_exit")
    install = commands.add_parser("install", description="Make a release of what the package brought.")
    install.set_defaults(work="internal:install")
    check = commands.add_parser("check-updater", description="Exit with 0 if this version could update itself.")
    check.set_defaults(work="internal:check_updater")
