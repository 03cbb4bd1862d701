"""``@task.capy_thread``: a Python function whose return value is the prompt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk.bases.decorator import DecoratedOperator, task_decorator_factory

from airflow_provider_capy.exceptions import CapyInputError
from airflow_provider_capy.operators.thread import CapyCreateThreadOperator

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from airflow.sdk import Context
    from airflow.sdk.bases.decorator import TaskDecorator


class _CapyThreadDecoratedOperator(DecoratedOperator, CapyCreateThreadOperator):
    """Calls the function on the worker and starts a thread with what it returns.

    The returned prompt is taken as it is: it may hold ``{{ … }}`` that belongs to the code it talks about, so it is
    never rendered as a template.
    """

    custom_operator_name = "@task.capy_thread"
    # The function's arguments are rendered; the prompt is what the function makes of them.
    template_fields: Sequence[str] = tuple(
        dict.fromkeys(
            (
                *DecoratedOperator.template_fields,
                *(name for name in CapyCreateThreadOperator.template_fields if name != "prompt"),
            )
        )
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        "repos": "json",
    }

    def __init__(
        self,
        *,
        python_callable: Callable[..., str],
        op_args: Sequence[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            python_callable=python_callable,
            op_args=op_args or (),
            op_kwargs=op_kwargs or {},
            prompt="",
            **kwargs,
        )

    def execute(self, context: Context) -> Any:
        return CapyCreateThreadOperator.execute(self, context)

    def _make_prompt(self, context: Context) -> None:
        kwargs = self.determine_kwargs({**context, **self.op_kwargs})
        prompt = self.python_callable(*self.op_args, **kwargs)
        if not isinstance(prompt, str):
            raise CapyInputError(
                f"prompt: {self.python_callable.__name__} returned a {type(prompt).__name__}; "
                "a @task.capy_thread function returns the prompt as text"
            )
        self.prompt = prompt


def capy_thread_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Turn a function that returns a prompt into a :class:`CapyCreateThreadOperator`.

    Args:
        python_callable: the function.
        **kwargs: arguments of the operator, ``prompt`` excepted.

    Raises:
        CapyInputError: one of them is sure to be refused.
    """
    # A mapped task is not built before its run.
    _CapyThreadDecoratedOperator.check_given(kwargs)
    return task_decorator_factory(
        python_callable=python_callable, decorated_operator_class=_CapyThreadDecoratedOperator, **kwargs
    )
