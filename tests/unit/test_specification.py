"""Every name of the specification is where it says, with its signature."""

import importlib
import inspect
import re
from typing import Any

import pydantic
import pytest

VARIABLES = [
    ("ivy.constants", "PROJECT_DIR", "str"),
    ("ivy.constants", "VERSION", "Version"),
    ("ivy.constants", "NAME", "str"),
    ("ivy.constants", "IVY_ROOT_DIR", "str"),
    ("ivy.constants", "LOGGING_LEVEL_PRIORITIES", "dict"),
    ("ivy.constants", "SECONDS_PER_GRACEFUL_PROCEDURE_TEARDOWN", "int"),
    ("ivy.utils.mainloop_toggle", "SCRIPT_PATH", "str"),
    ("ivy.utils.messaging_agent", "ACTIVE_QUEUE_FILE", "str"),
    ("ivy.utils.messaging_agent", "MESSAGE_ARCHIVE_DIR", "str"),
    ("ivy.utils.messaging_agent", "MESSAGE_ARCHIVE_DIR_LOCK", "str"),
    ("ivy.utils.state_interface", "STATE_FILE", "str"),
    ("ivy.utils.state_interface", "STATE_FILE_LOCK", "str"),
]

MODELS = [
    ("ivy.types.config", "Config"),
    ("ivy.types.config", "ForeignConfig"),
    ("ivy.types.config", "ForeignGeneralConfig"),
    ("ivy.types.config", "MQTTBrokerConfig"),
    ("ivy.types.messages", "ConfigMessageBody"),
    ("ivy.types.messages", "DataMessageBody"),
    ("ivy.types.messages", "LogMessageBody"),
    ("ivy.types.messages", "MessageArchiveItem"),
    ("ivy.types.messages", "MessageQueueItem"),
    ("ivy.types.state", "State"),
    ("ivy.types.state", "SystemState"),
]

# Module, name, parameters, return annotation. Those with a "static" in front are static methods.
CALLABLES = [
    ("ivy.main", "run", "", "None"),
    ("ivy.backend.tenta_backend", "run", "config logger teardown_indicator", "None"),
    ("ivy.backend.thingsboard_backend", "run", "config logger teardown_indicator", "None"),
    ("ivy.procedures.system_checks", "run", "config logger", "None"),
    ("ivy.types.config", "Config.dump", "self", "None"),
    ("ivy.types.config", "static Config.load", "", "Config"),
    ("ivy.types.config", "static Config.load_from_string", "c", "Config"),
    ("ivy.types.config", "static Config.load_template", "", "Config"),
    ("ivy.types.config", "Config.to_foreign_config", "self", "ForeignConfig"),
    ("ivy.types.config", "ForeignConfig.dump", "self", "None"),
    ("ivy.types.config", "static ForeignConfig.load_from_string", "c", "ForeignConfig"),
    ("ivy.utils.functions", "get_time_to_next_datapoint", "seconds_between_datapoints", "float"),
    ("ivy.utils.functions", "log_level_is_visible", "min_log_level log_level", "bool"),
    ("ivy.utils.functions", "with_automation_lock", "", "Generator[None, None, None]"),
    (
        "ivy.utils.lifecycle_manager",
        "LifecycleManager.__init__",
        "self config entrypoint procedure_name variant",
        "None",
    ),
    ("ivy.utils.lifecycle_manager", "LifecycleManager.check_procedure_status", "self", "None"),
    ("ivy.utils.lifecycle_manager", "LifecycleManager.procedure_is_running", "self", "bool"),
    ("ivy.utils.lifecycle_manager", "LifecycleManager.start_procedure", "self", "None"),
    ("ivy.utils.lifecycle_manager", "LifecycleManager.teardown", "self", "None"),
    ("ivy.utils.logger", "Logger.__init__", "self config origin", "None"),
    ("ivy.utils.logger", "Logger._write_log_line", "self level subject details", "None"),
    ("ivy.utils.logger", "Logger.debug", "self message details", "None"),
    ("ivy.utils.logger", "Logger.error", "self message details", "None"),
    ("ivy.utils.logger", "Logger.exception", "self e label details", "None"),
    ("ivy.utils.logger", "Logger.horizontal_line", "self fill_char", "None"),
    ("ivy.utils.logger", "Logger.info", "self message details", "None"),
    ("ivy.utils.logger", "Logger.warning", "self message details", "None"),
    ("ivy.utils.mainloop_toggle", "static MainloopToggle.get_mainloop_pids", "", "list[int]"),
    ("ivy.utils.mainloop_toggle", "static MainloopToggle.start_mainloop", "", "None"),
    ("ivy.utils.mainloop_toggle", "static MainloopToggle.stop_mainloop", "", "None"),
    ("ivy.utils.messaging_agent", "MessagingAgent.__init__", "self", "None"),
    ("ivy.utils.messaging_agent", "MessagingAgent.add_message", "self message_body", "None"),
    ("ivy.utils.messaging_agent", "static MessagingAgent.get_message_archive_file", "", "str"),
    (
        "ivy.utils.messaging_agent",
        "MessagingAgent.get_n_latest_messages",
        "self n excluded_message_ids",
        "list[MessageQueueItem]",
    ),
    ("ivy.utils.messaging_agent", "static MessagingAgent.load_message_archive", "date", "list[MessageArchiveItem]"),
    ("ivy.utils.messaging_agent", "MessagingAgent.remove_messages", "self message_ids", "None"),
    ("ivy.utils.messaging_agent", "MessagingAgent.teardown", "self", "None"),
    ("ivy.utils.state_interface", "static StateInterface.load", "", "State"),
    ("ivy.utils.state_interface", "static StateInterface.update", "", "Generator[State, None, None]"),
    ("ivy.utils.updater", "Updater.__init__", "self config", "None"),
    ("ivy.utils.updater", "Updater.download_source_code", "self version", "None"),
    ("ivy.utils.updater", "Updater.install_dependencies", "self version", "None"),
    ("ivy.utils.updater", "Updater.perform_update", "self foreign_config", "None"),
    ("ivy.utils.updater", "Updater.remove_old_venvs", "self", "None"),
    ("ivy.utils.updater", "Updater.run_pytests", "self version", "None"),
    ("ivy.utils.updater", "Updater.update_cli_pointer", "self version", "None"),
]


def _find(module: str, name: str) -> Any:
    """What stands under a dotted name, as its class holds it."""
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = inspect.getattr_static(found, part)
    return found


@pytest.mark.parametrize(("module", "name", "kind"), VARIABLES)
def test_variables(module: str, name: str, kind: str) -> None:
    assert type(_find(module, name)).__name__ == kind
    assert name in importlib.import_module(module).__annotations__


@pytest.mark.parametrize(("module", "name"), MODELS)
def test_models(module: str, name: str) -> None:
    assert issubclass(_find(module, name), pydantic.BaseModel)


def test_an_item_of_the_queue_is_one_of_the_archive() -> None:
    assert issubclass(
        _find("ivy.types.messages", "MessageQueueItem"), _find("ivy.types.messages", "MessageArchiveItem")
    )


@pytest.mark.parametrize(("module", "name", "parameters", "returned"), CALLABLES)
def test_functions_and_methods(module: str, name: str, parameters: str, returned: str) -> None:
    found = _find(module, name.removeprefix("static "))
    assert isinstance(found, staticmethod) is name.startswith("static ")
    signature = inspect.signature(found.__func__ if isinstance(found, staticmethod) else found)
    more = {name for name, each in signature.parameters.items() if each.kind is each.KEYWORD_ONLY}
    assert [name for name in signature.parameters if name not in more] == parameters.split()
    assert all(signature.parameters[name].default is not inspect.Parameter.empty for name in more)
    for name in parameters.split():
        parameter = signature.parameters[name]
        assert parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        assert parameter.name == "self" or parameter.annotation is not inspect.Parameter.empty
    assert _spelt(signature.return_annotation) == returned


def _spelt(annotation: Any) -> str:
    """A type as the table spells it: without its modules."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b\w+\.", "", text)


@pytest.mark.parametrize(
    ("module", "name"),
    [("ivy.utils.functions", "with_automation_lock"), ("ivy.utils.state_interface", "StateInterface.update")],
)
def test_context_managers(module: str, name: str) -> None:
    found = _find(module, name)
    function = found.__func__ if isinstance(found, staticmethod) else found
    assert hasattr(function(), "__enter__")
