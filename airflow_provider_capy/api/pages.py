"""The walk over the pages of a list, without sending anything, so that both clients walk alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_provider_capy.api.requests import ListThreadsQuery, checked
from airflow_provider_capy.exceptions import CapyResponseError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_provider_capy.api.models import Thread, ThreadPage

LARGEST_PAGE = 100


class PageWalk:
    """Says which page to ask for next, and yields each thread once.

    Args:
        project_id: the project.
        filters: the other fields of :class:`~airflow_provider_capy.api.requests.ListThreadsQuery`.

    Attributes:
        query: the next page to ask for; ``None`` when the walk is over.
    """

    def __init__(self, project_id: str, filters: dict[str, Any]) -> None:
        self.query: ListThreadsQuery | None = checked(
            ListThreadsQuery, project_id=project_id, **{"limit": LARGEST_PAGE, **filters}
        )
        self._cursors = {self.query.cursor}
        self._seen: set[str] = set()

    def take(self, page: ThreadPage) -> Iterator[Thread]:
        """Yield the page's threads that were not seen yet, and move on.

        Raises:
            CapyResponseError: when Capy hands out a cursor for the second time, which would never end.
        """
        self._advance(page)
        for thread in page.items:
            if thread.id not in self._seen:
                self._seen.add(thread.id)
                yield thread

    def _advance(self, page: ThreadPage) -> None:
        # An answer that does not say whether there is more says it with its cursor.
        more = page.has_more or "has_more" not in page.model_fields_set
        if self.query is None or not more or page.next_cursor is None:
            self.query = None
            return
        if page.next_cursor in self._cursors:
            raise CapyResponseError(
                "GET /v1/threads: Capy handed out the same cursor twice, the list would never end",
                method="GET",
                path="/v1/threads",
                status_code=200,
            )
        self._cursors.add(page.next_cursor)
        self.query = self.query.model_copy(update={"cursor": page.next_cursor})
