"""Tells Schemathesis what the contract says in prose only: filters that exclude each other, and where cursors come from."""

import schemathesis

EXCLUSIVE = (("authorId", "authorEmail"), ("participantId", "participantEmail"))
_given_out = set()


@schemathesis.hook
def before_call(context, case, kwargs):
    """Mend requests that are meant to be valid; those that are meant to be broken stay as they are."""
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    for one, other in EXCLUSIVE:
        if one in case.query and other in case.query:
            del case.query[other]
    if case.query.get("cursor") and case.query["cursor"] not in _given_out:
        del case.query["cursor"]


@schemathesis.hook
def after_call(context, case, response):
    """Remember the cursors that lists gave out."""
    if case.operation.label == "GET /v1/threads" and response.status_code == 200:
        _given_out.add(response.json()["nextCursor"])
