"""`ivy resend`, and the backend's side of it: what of the archive is sent again, in which portions, how far."""

import datetime
import json
import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from ivy.backend.resending import Resending
from ivy.types.messages import DataMessageBody, MessageQueueItem
from ivy.utils.logger import Logger
from ivy.utils.messaging_agent import MESSAGE_ARCHIVE_DIR, MESSAGE_ARCHIVE_DIR_LOCK, MessagingAgent
from ivy.utils.storage import archive, compressed, contents, resend, store
from tests.support.helpers import ARCHIVE_DIR, BACKEND, Node, make_config
from tests.unit import archives
from tests.unit.archives import DAY, NOON, Ivy, sample

REQUEST, PROGRESS = Path(resend.REQUEST_FILE), Path(resend.PROGRESS_FILE)
SINCE, UNTIL = NOON - 5 * DAY, NOON + 5 * DAY
LOG = {"variant": "log", "level": "ERROR", "subject": "s", "body": "b"}
MakeResending = Callable[..., Resending]


def fill_archive() -> None:
    """Two days: on each three samples and a line of log."""
    for day in (0, 1):
        for number in range(3):
            sample(NOON + day * DAY + number, number=10 * day + number, temperature=1.5)
        archives.archive(NOON + day * DAY + 5, **LOG)


def ask(**wanted: object) -> resend.Request:
    """Ask for messages to be sent again, behind the command's back."""
    request = resend.Request.model_validate({"since": SINCE, "until": UNTIL, **wanted})
    resend.begin(request)
    return request


@pytest.fixture
def make_resending(make_logger: type[Logger]) -> MakeResending:
    """Makes the backend's side; it saves at each opportunity."""
    verbosity = {"file_archive": "DEBUG", "console_prints": "DEBUG", "message_sending": "INFO"}
    config = make_config(backend=BACKEND, logging_verbosity=verbosity)
    return lambda **options: Resending(make_logger(config), 0.0, **options)


def found_by(
    resending: Resending, n: int = 1000, most_bytes: float = math.inf, excluded: Iterable[int] = ()
) -> list[MessageQueueItem]:
    """What is to be sent now, when as much was read as is wanted."""
    while True:
        found = resending.next(n, most_bytes, set(excluded))
        if resending.seconds_until_due() == math.inf:
            return found


def some(
    resending: Resending, n: int = 1000, most_bytes: float = math.inf, excluded: Iterable[int] = ()
) -> list[int]:
    """The identifiers of what is to be sent now."""
    return [item.identifier for item in found_by(resending, n, most_bytes, excluded)]


def numbers(resending: Resending) -> list[object]:
    """The numbers of the samples that are to be sent now; None stands for a log."""
    bodies = [item.message_body for item in found_by(resending)]
    return [body.data["number"] if isinstance(body, DataMessageBody) else None for body in bodies]


def fill_day(count: int) -> None:
    """One day of so many samples."""
    ARCHIVE_DIR.mkdir()
    lines = [
        archive.line(NOON + number, json.dumps({"variant": "data", "data": {"n": number}}))
        for number in range(count)
    ]
    (ARCHIVE_DIR / "2026-11-20.csv").write_text(archive.HEADER + "".join(lines))


# The command


@pytest.mark.parametrize(
    ("arguments", "counts"),
    [
        (["--since", "2026-11-01"], "8 messages (6 data, 2 log), 0.0 MB in the archive\n"),
        (["--since", "2026-11-21"], "4 messages (3 data, 1 log), 0.0 MB in the archive\n"),
        (["--since", "2026-11-01", "--until", "2026-11-21", "--kind", "log"], "1 messages (1 log), "),
        (["--since", str(NOON + 1), "--until", str(NOON + 2)], "1 messages (1 data), "),
        (["--since", "2026-11-01", "--key", "temp*", "other"], "6 messages (6 data), "),
        (["--since", "2026-11-01", "--key", "other"], "0 messages\n"),
        (["--since", "2026-11-23"], "0 messages\n"),
    ],
)
def test_a_dry_run_counts(ivy: Ivy, arguments: list[str], counts: str) -> None:
    fill_archive()
    status, output, errors = ivy("resend", "--dry-run", *arguments)
    assert (status, errors) == (0, "") and output.startswith(counts)
    assert not REQUEST.exists()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "--since is missing"),
        (["--until", "2026-11-20"], "--since is missing"),
        (["--since", "yesterday"], "must look like"),
        (["--since", "2026-11-20", "--until", "2026-13-40"], "must look like"),
        (["--since", "2026-11-20", "--until", "2026-11-20"], "--since must be earlier"),
        (["--since", "9000-01-01", "--until", "9001-01-01"], "--since must be earlier than --until, and than now"),
        (["--since", "-1h", "--kind", "surprise"], "invalid choice"),
        (["--since", "-1h", "--kind", "log", "--key", "a"], "--key is for data"),
        (["--since", "-1h", "--key", *map(str, range(101))], "--key takes at most 100 keys"),
        (["--since", "-1h", "--key", "k" * 1001], "--key takes at most 100 keys of 1000 characters"),
        (["--cancel", "--since", "-1h"], "--cancel goes with nothing else"),
        (["--cancel", "--dry-run"], "--cancel goes with nothing else"),
    ],
)
def test_wrong_use_exits_with_2_and_says_why(
    node: Node, ivy_of_node: Ivy, arguments: list[str], complaint: str
) -> None:
    node.write_config(backend=BACKEND)
    fill_archive()
    status, output, errors = ivy_of_node("resend", *arguments)
    assert (status, output) == (2, "") and complaint in errors
    assert not REQUEST.exists()


def test_it_is_asked_for_counted_and_shown(node: Node, ivy_of_node: Ivy) -> None:
    node.write_config(backend=BACKEND)
    fill_archive()
    MessagingAgent().teardown()
    assert json.loads(ivy_of_node("queue", "--json")[1])["resend"] is None
    status, output, errors = ivy_of_node("resend", "--since", "2026-11-01", "--key", "temp*")
    assert (status, errors) == (0, "") and output.startswith("6 messages (6 data), ") and "ivy queue" in output
    shown = json.loads(ivy_of_node("queue", "--json")[1])["resend"]
    since = datetime.datetime(2026, 11, 1, tzinfo=datetime.UTC).timestamp()
    assert time.time() - 60 < shown.pop("until") <= time.time()
    expected = {"since": since, "kind": "data", "keys": ["temp*"], "messages": 6, "sent": 0, "is_done": False}
    assert shown == expected
    assert "resend:   0 of 6 messages of the archive were sent again, it goes on" in ivy_of_node("queue")[1]
    assert json.loads(ivy_of_node("queue", "--json")[1])["length"] == 0


def test_what_is_still_to_come_is_not_asked_for(node: Node, ivy_of_node: Ivy) -> None:
    node.write_config(backend=BACKEND)
    fill_archive()
    before = time.time()
    assert ivy_of_node("resend", "--since", "2026-11-01", "--until", "9000-01-01")[0] == 0
    request = resend.request()
    assert request is not None and before <= request.until <= time.time()


def test_a_second_one_is_refused_until_the_first_is_done(
    node: Node, ivy_of_node: Ivy, make_resending: MakeResending
) -> None:
    node.write_config(backend=BACKEND)
    fill_archive()
    assert ivy_of_node("resend", "--since", "2026-11-01")[0] == 0
    first = resend.request()
    status, output, errors = node.ivy("resend", "--since", "2026-11-02")
    assert (status, output) == (1, "")
    assert "0 of 8 messages were sent again" in errors and "ivy resend --cancel" in errors
    assert resend.request() == first
    resending = make_resending()
    resending.remove(some(resending))
    resending.next(1, math.inf, set())
    assert "resend:   8 of 8 messages of the archive were sent again, it was done" in node.ivy("queue")[1]
    assert ivy_of_node("resend", "--since", "2026-11-02")[0] == 0


def test_a_key_that_is_no_text_is_what_a_sample_would_have(node: Node, ivy_of_node: Ivy) -> None:
    node.write_config(backend=BACKEND)
    sample(NOON, **{"caf?": 1})
    assert ivy_of_node("resend", "--since", "2026-11-01", "--key", "caf\udce9")[0] == 0
    request = resend.request()
    assert request is not None and (request.keys, request.messages) == (("caf?",), 1)


def test_it_can_be_cancelled(node: Node, ivy_of_node: Ivy) -> None:
    node.write_config(backend=BACKEND)
    fill_archive()
    status, output, errors = ivy_of_node("resend", "--cancel")
    assert (status, output) == (1, "") and "no messages are being sent again" in errors
    assert ivy_of_node("resend", "--since", "2026-11-01")[0] == 0
    assert ivy_of_node("resend", "--cancel") == (0, "ended: 0 messages were sent again, the others are not\n", "")
    assert ivy_of_node("resend", "--cancel")[0] == 1
    assert ivy_of_node("resend", "--since", "2026-11-02")[0] == 0


def test_without_a_backend_it_is_refused(node: Node, ivy_of_node: Ivy) -> None:
    node.write_config(backend=None)
    fill_archive()
    status, output, errors = ivy_of_node("resend", "--since", "2026-11-01")
    assert (status, output) == (1, "") and "there is nobody to send to" in errors
    assert not REQUEST.exists()


def test_with_a_config_that_cannot_be_used_it_is_refused(node: Node, ivy_of_node: Ivy) -> None:
    node.write_config(backend="surprise")
    assert ivy_of_node("resend", "--since", "2026-11-01")[0] == 78


def test_where_there_is_nothing_to_send_nothing_is_asked_for(node: Node, ivy_of_node: Ivy) -> None:
    node.write_config(backend=BACKEND)
    status, output, errors = ivy_of_node("resend", "--since", "2026-11-01")
    assert (status, output) == (1, "") and "the archive has no such messages" in errors
    assert not REQUEST.exists()


# The backend


def test_nothing_is_sent_again_unless_somebody_asks(make_resending: MakeResending) -> None:
    fill_archive()
    resending = make_resending()
    assert some(resending) == [] and resending.seconds_until_due() == math.inf
    resending.close()
    assert not PROGRESS.exists()


def test_messages_come_whole_and_with_their_own_times(make_resending: MakeResending) -> None:
    fill_archive()
    archives.archive(NOON + 2 * DAY, variant="data", data={"temperature": 1.0}, clock_synchronised=False)
    ask(keys=("temp*",), kind="data")
    found = found_by(make_resending())
    assert [item.timestamp for item in found] == [
        *(NOON, NOON + 1, NOON + 2, NOON + DAY, NOON + DAY + 1, NOON + DAY + 2, NOON + 2 * DAY)
    ]
    assert found[1].message_body == DataMessageBody(data={"number": 1, "temperature": 1.5})
    assert [item.message_body.clock_synchronised for item in found] == [True] * 6 + [False]


def test_it_begins_and_ends_at_the_times(make_resending: MakeResending) -> None:
    fill_archive()
    ask(since=NOON + 1, until=NOON + DAY + 1, kind="data")
    assert numbers(make_resending()) == [1, 2, 10]


def test_no_more_come_than_are_wanted_and_none_twice(make_resending: MakeResending) -> None:
    fill_archive()
    ask()
    resending = make_resending()
    first = some(resending, 3)
    assert len(first) == 3 and min(first) >= contents.FIRST_FOREIGN
    second = some(resending, 3, excluded=set(first))
    assert len(second) == 3 and set(first).isdisjoint(second)
    assert some(resending, 3) == first  # whose connection broke
    assert len(some(resending, 100, 1)) == 1
    assert len(some(resending, 100, 200)) == 2


def test_what_is_not_acknowledged_is_bounded(make_resending: MakeResending) -> None:
    fill_day(3000)
    ask()
    resending = make_resending()
    excluded: set[int] = set()
    while found := some(resending, 300, excluded=excluded):
        excluded.update(found)
    assert len(excluded) == 2000
    resending.remove(list(excluded)[:100])
    assert len(some(resending, 300, excluded=excluded)) == 100


def test_large_messages_are_bounded_by_their_bytes(make_resending: MakeResending) -> None:
    for number in range(20):
        sample(NOON + number, text="x" * 500_000)
    ask()
    resending = make_resending()
    assert len(some(resending, 20)) == 4


def test_it_goes_on_behind_what_was_acknowledged_after_a_kill(make_resending: MakeResending) -> None:
    fill_archive()
    request = ask(kind="data")
    resending = make_resending()
    found = some(resending)
    resending.remove([found[0], found[1], found[3], found[5]])  # not in order
    resending.next(1, math.inf, set())
    assert (resend.progress(request).sent, resend.progress(request).is_done) == (2, False)
    again = make_resending()
    assert numbers(again) == [2, 10, 11, 12]
    again.remove(some(again)[:2])
    again.close()
    assert resend.progress(request).sent == 4
    assert numbers(make_resending()) == [11, 12]


def test_it_goes_on_when_the_day_was_compressed_meanwhile(make_resending: MakeResending) -> None:
    fill_archive()
    ask(kind="data")
    resending = make_resending()
    resending.remove(some(resending)[:2])
    resending.close()
    path = str(ARCHIVE_DIR / "2026-11-20.csv")
    compressed.compress(path, MESSAGE_ARCHIVE_DIR_LOCK, archive.LARGEST_DAY, lambda _: None)
    assert not Path(path).exists()
    assert numbers(make_resending()) == [2, 10, 11, 12]


def test_it_goes_on_when_days_were_removed_meanwhile(make_resending: MakeResending) -> None:
    fill_archive()
    ask(kind="data")
    resending = make_resending()
    resending.remove(some(resending)[:2])
    resending.close()
    archive.remove_day(MESSAGE_ARCHIVE_DIR, datetime.date(2026, 11, 20))
    assert numbers(make_resending()) == [10, 11, 12]


def test_the_end_is_told_and_stays_the_end(make_resending: MakeResending, agent: MessagingAgent) -> None:
    fill_archive()
    request = ask()
    resending = make_resending()
    resending.remove(some(resending))
    assert some(resending) == [] and resend.progress(request).is_done
    [told] = agent.get_n_latest_messages(10)
    assert "8 messages of the archive were sent again" in told.message_body.model_dump_json()
    assert some(resending) == [] and some(make_resending()) == []
    assert agent.get_queue_length() == 1


def test_a_request_is_seen_and_so_is_its_end(make_resending: MakeResending) -> None:
    fill_archive()
    resending = make_resending()
    assert some(resending) == []
    ask(kind="log")
    assert len(some(resending)) == 2
    assert resend.cancel() is not None
    assert some(resending) == []
    ask(kind="data")
    found = some(resending)
    assert len(found) == 6 and min(found) > contents.FIRST_FOREIGN + 2  # a late acknowledgment is of none of these
    resending.close()
    assert resend.cancel() is not None


def test_another_request_takes_the_place_of_the_first(make_resending: MakeResending) -> None:
    """Cancelled and asked for again, while nobody looked."""
    fill_archive()
    ask(kind="log")
    resending = make_resending()
    assert len(some(resending)) == 2
    resend.cancel()
    ask(kind="data")
    assert numbers(resending) == [0, 1, 2, 10, 11, 12]


def test_a_cancelled_one_is_not_taken_up_again(make_resending: MakeResending) -> None:
    fill_archive()
    ask()
    resending = make_resending()
    resending.remove(some(resending)[:2])
    resend.cancel()
    resending.close()  # keeps how far it was
    assert resend.request() is None and some(make_resending()) == []


def test_what_is_rare_is_searched_for_in_small_steps(make_resending: MakeResending) -> None:
    fill_day(30_000)
    sample(NOON + 40_000, rare=1)
    ask(keys=("rare",))
    resending = make_resending()
    steps = 0
    while not (found := resending.next(10, math.inf, set())):
        steps += 1
        assert 0 < resending.seconds_until_due() < 1, "nobody would go on"
    assert steps > 1 and [item.timestamp for item in found] == [NOON + 40_000]


def test_the_search_for_what_is_rare_is_kept_too(make_resending: MakeResending) -> None:
    fill_day(100)
    sample(NOON + 200, rare=1)
    request = ask(keys=("rare",))
    resending = make_resending()
    assert len(some(resending)) == 1
    resending.close()
    assert (resend.progress(request).line, resend.progress(request).sent) == (101, 0)  # with the header


def test_after_a_stop_nothing_more_is_sent(make_resending: MakeResending) -> None:
    fill_archive()
    request = ask()
    resending = make_resending()
    found = some(resending, 4)
    resending.stop()
    assert some(resending) == []
    resending.remove(found)
    resending.close()
    assert resend.progress(request).sent == 4


def test_over_another_connection_than_that_of_the_config_nothing_is_sent(make_resending: MakeResending) -> None:
    fill_archive()
    ask()
    assert some(make_resending(is_wanted=False)) == []


def test_a_line_that_is_no_message_costs_nothing_else(make_resending: MakeResending) -> None:
    sample(NOON, number=1)
    archives.archive(NOON + 1, variant="data", data={"configuration": 1})  # reserved
    archives.archive(NOON + 2, variant="surprise")
    with (ARCHIVE_DIR / "2026-11-20.csv").open("a") as file:
        file.write("torn\n\n")
    sample(NOON + 3, number=2)
    request = ask()
    resending = make_resending()
    assert numbers(resending) == [1, 2]
    resending.remove(some(resending))
    resending.next(1, math.inf, set())
    assert (resend.progress(request).sent, resend.progress(request).is_done) == (2, True)


def test_of_a_day_that_cannot_be_read_the_operator_is_told(
    make_resending: MakeResending, monkeypatch: pytest.MonkeyPatch, agent: MessagingAgent
) -> None:
    fill_archive()
    ask(kind="data")
    stored_lines = archive.stored_lines

    def fail(path: str) -> object:
        if "2026-11-20" in path:
            raise OSError(5, "Input/output error")
        return stored_lines(path)

    monkeypatch.setattr(archive, "stored_lines", fail)
    assert numbers(make_resending()) == [10, 11, 12]
    told = " ".join(item.model_dump_json() for item in agent.get_n_latest_messages(10))
    assert "2026-11-20.csv cannot be read, the rest of it is not sent again: Input/output error" in told


def test_a_disk_that_takes_no_progress_keeps_nothing_from_being_sent(make_resending: MakeResending) -> None:
    fill_archive()
    request = ask()
    PROGRESS.mkdir()
    resending = make_resending()
    resending.remove(some(resending, 4))
    found = some(resending)
    assert len(found) == 4
    PROGRESS.rmdir()
    resending.remove(found)
    resending.next(1, math.inf, set())
    assert resend.progress(request).is_done


MANY_KEYS = json.dumps({"since": 0, "until": UNTIL, "keys": [f"{number}*" for number in range(1000)]})


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"since": NaN, "until": 1}', '{"since": 1}', MANY_KEYS, "x" * 2_000_000]
)
def test_a_request_without_sense_harms_nobody(
    make_resending: MakeResending, node: Node, ivy_of_node: Ivy, content: str
) -> None:
    node.write_config(backend=BACKEND)
    fill_archive()
    REQUEST.write_text(content)
    assert some(make_resending()) == []
    assert ivy_of_node("queue")[0] == 1  # there is none yet
    assert ivy_of_node("resend", "--since", "2026-11-01")[0] == 0
    assert len(some(make_resending())) == 8


def test_no_link_leads_the_backend_to_another_file(make_resending: MakeResending, root_dir: Path) -> None:
    """Any service may write in the data directory, and the backend where others may not."""
    fill_archive()
    ask()
    treasure = root_dir / "treasure"
    treasure.write_text("{}")
    PROGRESS.symlink_to(treasure)
    resending = make_resending()
    resending.remove(some(resending))
    resending.next(1, math.inf, set())
    assert treasure.read_text() == "{}" and not PROGRESS.is_symlink()


def test_the_queue_does_not_know_such_numbers(agent: MessagingAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the archive takes nothing, it is given up up to the largest number: that must not be one of these."""
    monkeypatch.setattr(store, "SECONDS_WITHOUT_ARCHIVE", -1)
    ARCHIVE_DIR.write_text("a file where the directory should be")
    agent.add_message(DataMessageBody(data={"a": 1}))
    [item] = agent.get_n_latest_messages(1)
    agent.remove_messages([contents.FIRST_FOREIGN, contents.FIRST_FOREIGN + 7, item.identifier])
    assert agent.database.run(contents.archived) == item.identifier
    agent.add_message(DataMessageBody(data={"a": 2}))
    [item] = agent.get_n_latest_messages(1)
    assert item.identifier < 10


def test_queue_and_archive_are_as_they_were(agent: MessagingAgent, make_resending: MakeResending) -> None:
    """So its bound holds, nothing counts as new, and a release that knows nothing of it may run in the midst."""
    fill_archive()
    agent.add_message(DataMessageBody(data={"a": 1}))

    def all_of_it() -> list[object]:
        tables = [agent.database.execute(f"SELECT * FROM {name}") for name in ("QUEUE", "MARKS", "DROPPED", "ONCE")]
        archived = sorted((path.name, path.read_bytes()) for path in ARCHIVE_DIR.iterdir())
        return [*tables, agent.database.execute("SELECT sql FROM sqlite_schema"), archived]

    before = all_of_it()
    ask()
    resending = make_resending()
    found = some(resending)
    agent.remove_messages(found)  # as the backend does, all that was acknowledged together
    resending.remove(found[:5])
    resending.close()
    assert len(found) == 8 and all_of_it() == before
