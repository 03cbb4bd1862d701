"""The buttons on a task instance; their addresses are XComs that are pushed while the task still runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink, BaseXCom

from airflow_provider_capy.killing import CapyKilledError

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

THREAD_URL_KEY = "thread_url"
PULL_REQUEST_URL_KEY = "pull_request_url"


def push_link(ti: Any, key: str, url: str, log: Any) -> None:
    """Push a link's address past any XCom backend, as Airflow does: the API server shows what is stored.

    A link is no reason to fail.
    """
    try:
        BaseXCom.set(key, url, dag_id=ti.dag_id, task_id=ti.task_id, run_id=ti.run_id, map_index=ti.map_index)
    except CapyKilledError:
        raise
    except Exception as error:  # noqa: BLE001 - see above
        log.warning("The link %s could not be stored: %r", key, error)


class _StoredLink(BaseOperatorLink):
    """A link whose address is an XCom of its own task.

    Airflow itself stores a link only when the task ends. With ``xcom_key`` naming the key that the task pushes right
    after the create, the button works while the task runs or is deferred.
    """

    key: str

    @property
    def xcom_key(self) -> str:
        return self.key

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow's signature
        # Airflow stores what this returns under the same key when the task ends: it must not blank the address out.
        return BaseXCom.get_value(ti_key=ti_key, key=self.key) or ""  # type: ignore[arg-type]


class CapyThreadLink(_StoredLink):
    """The button "Open in Capy": the thread's web address, XCom ``thread_url``."""

    name = "Open in Capy"
    key = THREAD_URL_KEY


class CapyPullRequestLink(_StoredLink):
    """The button "Pull request": the thread's first pull request, XCom ``pull_request_url``, as soon as there is one."""

    name = "Pull request"
    key = PULL_REQUEST_URL_KEY
