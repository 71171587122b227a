"""The same for a broker of Tenta's that breaks connections over a message, which no Mosquitto does."""

import socket

from testbed.waiting import wait_for

from tests.broker.fake import SparingBroker
from tests.support.backend_node import MakeNode, data_message


class PickyBroker(SparingBroker):
    """Breaks the connection over a certain value."""

    def __init__(self) -> None:
        self.breaks = 0
        super().__init__()
        self.generous = True

    def numbers(self) -> set[float]:
        """All that arrived."""
        return {element["value"]["number"] for element in self.received if "value" in element}

    def _take(self, body: bytes) -> None:
        if b'"number":13.5' in body:
            self.breaks += 1
            self._open[-1].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError
        super()._take(body)


def test_a_message_that_comes_alone_breaks_the_connection_twice_only(make_node: MakeNode) -> None:
    with PickyBroker() as broker:
        node = make_node(broker.port)
        node.start(hurry={"for_a_witness": 600.0})
        node.wait_until_connected()
        node.add(data_message(number=0))
        wait_for(lambda: broker.numbers() == {0}, 10, "a message")
        node.add(data_message(number=13.5))
        wait_for(lambda: broker.breaks == 1, 10, "the first break")
        node.add(data_message(number=1))
        wait_for(lambda: broker.breaks == 2, 10, "the second break, after a message that got through")
        assert broker.numbers() == {0, 1}
        node.add(data_message(number=2))
        node.wait_until_empty()
        assert broker.breaks == 2
        assert node.log.count("A message was removed") == 1


def test_a_message_over_which_the_broker_breaks_the_connection_blocks_nothing(make_node: MakeNode) -> None:
    with PickyBroker() as broker:
        node = make_node(broker.port)
        numbers = [*range(13), 13.5, *range(14, 20)]
        node.fill([data_message(number=number) for number in numbers])
        node.start(hurry={"to_try_again": 0.02, "for_a_witness": 0.0})
        node.wait_until_empty(30)
        assert broker.breaks == 2
        assert broker.numbers() == {*range(13), *range(14, 20)}
        assert node.log.count("A message was removed") == 1


def test_who_was_under_way_with_it_does_not_wait_for_the_end_of_a_backlog(make_node: MakeNode) -> None:
    with PickyBroker() as broker:
        node = make_node(broker.port, max_parallel_messages=10)
        newest = [13.5, *range(5001, 5010)]
        node.fill([data_message(number=number) for number in [*range(20, 5000), *newest]])
        node.start(hurry={"to_try_again": 0.02})
        node.wait_until_empty(30)
        assert broker.breaks == 2
        order = [element["value"]["number"] for element in broker.received if "value" in element]
        assert order.index(5009) < 2000
        assert sorted(order) == [*range(20, 5000), *newest[1:]]
