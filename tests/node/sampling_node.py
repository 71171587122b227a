"""A node that samples fast and sends, with a small disk for its data."""

from testbed.bed import Node

from tests.node import damage, fake_clock, small_disk
from tests.support.installed import use_backend
from tests.support.platforms import MortalPlatform
from tests.support.sampling import add_sampler, arrived, be_impatient

# With log messages each service has the queue open twice.
VERBOSITY = {"file_archive": "DEBUG", "console_prints": "DEBUG", "message_sending": "INFO"}


def prepare(node: Node, platform: MortalPlatform, protocol: str | None = None) -> None:
    """A node that samples and sends, with all that faults need. `protocol` is as in the config."""
    be_impatient(node)
    node.run(["apt-get", "install", "--yes", damage.PACKAGE])
    fake_clock.install(node)
    small_disk.insert(node)
    use_backend(
        node,
        platform.provider,
        platform.address,
        platform.port,
        connection={"protocol": protocol},
        logging_verbosity=VERBOSITY,
    )
    add_sampler(node)
    node.wait_for(lambda: arrived(platform.samples()), 20, "the first samples")
