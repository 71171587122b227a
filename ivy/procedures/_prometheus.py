"""The text format of Prometheus: metrics with their help, types, labels and values. Knows nothing of nodes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Union

Sample = tuple[Mapping[str, str], Union[int, float]]


@dataclass(frozen=True)
class Metric:
    """A metric with its samples, each with other labels."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    samples: Sequence[Sample]


def single(
    name: str, kind: Literal["gauge", "counter"], help: str, value: Union[int, float], **labels: str
) -> Metric:
    """A metric with one sample."""
    return Metric(name, kind, help, [(labels, value)])


def render(metrics: Sequence[Metric]) -> str:
    """The text for metrics; those without samples are left out."""
    lines: list[str] = []
    for metric in metrics:
        if metric.samples:
            lines.append(f"# HELP {metric.name} {_escape(metric.help)}")
            lines.append(f"# TYPE {metric.name} {metric.kind}")
            lines += [f"{metric.name}{_labels(labels)} {_number(value)}" for labels, value in metric.samples]
    return "\n".join([*lines, ""])


def _labels(labels: Mapping[str, str]) -> str:
    quoted = [f'{name}="{_escape(value, quotes=True)}"' for name, value in labels.items()]
    return "{" + ",".join(quoted) + "}" if quoted else ""


def _escape(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text


def _number(value: Union[int, float]) -> str:
    if math.isnan(value):
        return "NaN"
    return repr(value) if math.isfinite(value) else f"{'+' if value > 0 else '-'}Inf"
