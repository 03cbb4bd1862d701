"""Checks what users give and template, in all its spellings, as early as it is known: when the DAG is parsed, or once rendered."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from airflow_provider_capy.exceptions import CapyInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

T = TypeVar("T")

SHORTEST_INTERVAL = 0.1
_TEXTS = ("thread_id", "project_id", "reference", "capy_conn_id")
# No clock of Airflow's or ours overflows below it, and nobody waits that long.
TEN_YEARS = 10 * 365 * 24 * 60 * 60.0
_MARKS = ("{{", "{%", "{#")
# What cannot hold a template, and is not resolved later, as an XComArg is.
_PLAIN = (bool, int, float, bytes, timedelta, type(None))


def digits(value: Any) -> Any:
    """Return the digits of a whole number, which native rendering makes of a text; anything else as it is."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def not_text(value: Any) -> str:
    """Say what is wrong with a value that is no text, and what keeps Airflow from making such of one."""
    if isinstance(value, (bytes, bytearray)):
        return "is bytes, not text; decode it"
    kind = type(value).__name__
    return f"is of type {kind}, not text; if native rendering made it so, give the task render_template_as_native_obj=False"


def as_text(name: str, value: Any) -> str:
    """Return a text without white space around it; whole numbers stand for their digits.

    Raises:
        CapyInputError: when it is none, or a blank one.
    """
    text = digits(value)
    if not isinstance(text, str):
        raise CapyInputError(f"{name}: {value!r} {not_text(value)}")
    if not text.strip():
        raise CapyInputError(f"{name}: {value!r} is empty; a template may have rendered to nothing")
    return text.strip()


def as_text_or_none(name: str, value: Any) -> str | None:
    """Return :func:`as_text`, or ``None`` for a blank text: not given."""
    return None if value is None or (isinstance(value, str) and not value.strip()) else as_text(name, value)


def as_flag(name: str, value: Any) -> bool:
    """Return a switch, which is never templated: a text is true, whatever it says.

    Raises:
        CapyInputError: when it is neither ``True`` nor ``False``.
    """
    if not isinstance(value, bool):
        raise CapyInputError(f"{name}: {value!r} is neither True nor False, and no template is rendered here")
    return value


def as_seconds(name: str, value: float | timedelta | str, *, least: float = 0.0, most: float = TEN_YEARS) -> float:
    """Return a duration in seconds.

    Args:
        name: the argument's name, for the error.
        value: seconds as a number or as text (a rendered template), or a ``timedelta``.
        least: the smallest value that makes sense.
        most: the largest.

    Raises:
        CapyInputError: when it is no such duration.
    """
    try:
        seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if isinstance(value, bool) or not least <= seconds <= most:
        raise CapyInputError(
            f"{name}: {value!r} is not a number of seconds from {least:g} to {most:.0f}, nor a timedelta"
        )
    return seconds


def as_interval(name: str, value: float | timedelta | str) -> float:
    """Return the seconds between two looks; too short ones would be felt by Capy, and gain nothing."""
    return as_seconds(name, value, least=SHORTEST_INTERVAL)


def as_thread_id(thread_id: Any) -> str:
    """Return one thread's id, also from its web address, without white space around it, as a template may leave some.

    Raises:
        CapyInputError: when it is none: a list of them, the text that a template makes of nothing, a path.
    """
    from airflow_provider_capy.api.requests import thread_id_in_path

    text = digits(thread_id)
    if not isinstance(text, str):
        raise CapyInputError(
            f"thread_id: {thread_id!r} is not a thread id but a {type(thread_id).__name__}; a sensor waits for one thread, "
            "use .expand(thread_id=…) for several"
        )
    return thread_id_in_path(text.strip())


def optional(check: Callable[[str, Any], T]) -> Callable[[str, Any], T | None]:
    """Let ``None`` stand for "not given"."""
    return lambda name, value: None if value is None else check(name, value)


as_seconds_or_none = optional(as_seconds)


def is_literal(value: Any) -> bool:
    """Say whether a value stays what it is when a task's fields are rendered."""
    if isinstance(value, str):
        return not any(mark in value for mark in _MARKS)
    if isinstance(value, Mapping):
        return all(map(is_literal, (*value.keys(), *value.values())))
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(is_literal, value))
    return isinstance(value, _PLAIN)


class CheckedArguments:
    """Mixed into an operator, before the base operator: what is sure to be refused breaks the DAG's parsing, not its run.

    Attributes:
        checks: by argument, what raises ``CapyInputError`` for a wrong value.
    """

    checks: ClassVar[Mapping[str, Callable[[str, Any], object]]]
    template_fields: Collection[str]
    get_dag: Callable[[], Any]

    @classmethod
    def check_given(cls, given: Mapping[str, Any]) -> None:
        """Check the arguments that are known before anything is rendered.

        Raises:
            CapyInputError: naming the argument, its value and the fix.
        """
        from airflow.sdk.definitions._internal.contextmanager import DagContext

        dag: Any = given.get("dag") or DagContext.get_current()
        # A DAG can choose what marks its templates.
        knows_marks = not getattr(dag, "jinja_environment_kwargs", None)
        known = {
            name: value
            for name, value in given.items()
            if name not in cls.template_fields or (knows_marks and is_literal(value))
        }
        cls._check_known(known)

    @classmethod
    def _check_known(cls, known: Mapping[str, Any]) -> None:
        for name, check in cls.checks.items():
            if name in known:
                check(name, known[name])

    @classmethod
    def partial(cls, **kwargs: Any) -> Any:
        """Check what a mapped task is given beside its mapped arguments, and go on as Airflow does."""
        cls.check_given(kwargs)
        return super().partial(**kwargs)  # type: ignore[misc]

    def _check_init(self, given: Mapping[str, Any]) -> None:
        # What is mapped is known only to the run, where a wrong argument is no reason to forget the thread.
        if not getattr(self, "_BaseOperator__from_mapped", False):
            self.check_given({"dag": self.get_dag(), **given})

    def _check_rendered(self) -> None:
        """Check all arguments once they are rendered."""
        self._check_known({name: getattr(self, name) for name in self.checks})

    def _take_digits(self) -> None:
        """Make texts again of whole numbers, which native rendering made of them."""
        for name in _TEXTS:
            if name in self.template_fields:
                setattr(self, name, digits(getattr(self, name)))
