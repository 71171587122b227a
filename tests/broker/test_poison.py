"""The same for a broker of Tenta's that breaks connections over a message, which no Mosquitto does."""

import socket

from tests.broker.conftest import MakeNode
from tests.broker.fake import SparingBroker
from tests.broker.node import data_message


class PickyBroker(SparingBroker):
    """Breaks the connection over a certain value."""

    def __init__(self) -> None:
        self.breaks = 0
        super().__init__()
        self.generous = True

    def _take(self, body: bytes) -> None:
        if b'"number":13.5' in body:
            self.breaks += 1
            self._open[-1].shutdown(socket.SHUT_RDWR)
            raise ConnectionAbortedError
        super()._take(body)


def test_a_message_over_which_the_broker_breaks_the_connection_blocks_nothing(make_node: MakeNode) -> None:
    with PickyBroker() as broker:
        node = make_node(broker.port)
        numbers = [*range(13), 13.5, *range(14, 20)]
        node.fill([data_message(number=number) for number in numbers])
        node.start(hurry={"backoff._FIRST": 0.02})
        node.wait_until_empty(30)
        assert broker.breaks == 3
        arrived = {element["value"]["number"] for element in broker.received if "value" in element}
        assert arrived == {*range(13), *range(14, 20)}
        assert node.log.count("A message was removed") == 1
