"""The tree of errors is the one its map shows, and errors survive what happens to errors."""

import copy
import pickle
import re

import pytest

from airflow_provider_capy import exceptions
from airflow_provider_capy.exceptions import (
    LONGEST_MESSAGE,
    CapyAPIError,
    CapyConflictError,
    CapyError,
    CapyForbiddenError,
    CapyInputError,
    CapyNotFoundError,
    CapyRateLimitError,
    CapyServerError,
    CapyUnauthorizedError,
    CapyValidationError,
    api_error_class,
    with_words,
)

CLASSES = [
    value
    for value in vars(exceptions).values()
    if getattr(value, "__module__", "") == exceptions.__name__ and isinstance(value, type)
]


def the_map():
    """Read the drawing in the module's docstring as pairs of a class and its parent."""
    pairs, above = [], []
    for line in exceptions.__doc__.splitlines():
        found = re.match(r"    ([│├└─ ]*)(Capy\w+)", line)
        if found:
            depth = len(found[1]) // 4
            above = [*above[:depth], found[2]]
            pairs.append((found[2], above[depth - 1] if depth else "Exception"))
    return pairs


def the_tree(kind, parent="Exception"):
    yield kind.__name__, parent
    for child in kind.__subclasses__():
        # Errors that are not retried have classes of the same names, made when they are raised.
        if getattr(exceptions, child.__name__, None) is child:
            yield from the_tree(child, kind.__name__)


def test_the_map_shows_the_real_tree():
    assert the_map() == list(the_tree(CapyError))
    assert len(the_map()) > 20


def test_every_public_class_is_in_the_tree():
    assert {kind.__name__ for kind in CLASSES} == {name for name, _ in the_map()}


def test_the_map_tells_the_status_of_every_class_that_has_one():
    drawn = dict(re.findall(r"(Capy\w+)\s+(\d\d\d)\n", exceptions.__doc__))
    assert {int(status): name for name, status in drawn.items()} == {
        status: api_error_class(status).__name__ for status in (401, 403, 404, 409, 422, 429)
    }


def test_a_wrong_argument_is_a_value_error_too():
    assert issubclass(CapyInputError, ValueError)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, CapyAPIError),
        (401, CapyUnauthorizedError),
        (403, CapyForbiddenError),
        (404, CapyNotFoundError),
        (409, CapyConflictError),
        (410, CapyAPIError),
        (422, CapyValidationError),
        (429, CapyRateLimitError),
        (499, CapyAPIError),
        (500, CapyServerError),
        (503, CapyServerError),
        (599, CapyServerError),
    ],
)
def test_a_status_has_one_class(status, kind):
    assert api_error_class(status) is kind


ATTRIBUTES = {
    "method": "GET",
    "path": "/v1/threads/jam_1",
    "status_code": 422,
    "code": "validation_error",
    "details": [{"path": "model"}],
    "retry_after": 1.5,
    "thread_id": "jam_1",
    "thread_url": "https://capy.ai/x",
}


def attributes_of(kind):
    return {name: value for name, value in ATTRIBUTES.items() if hasattr(make(kind), name)}


def make(kind, **attributes):
    return kind("What happened", **attributes)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
def test_an_error_survives_its_way_to_another_process(kind, way):
    attributes = attributes_of(kind)
    error = way(make(kind, **attributes))
    assert type(error) is kind
    assert (str(error), vars(error)) == ("What happened", attributes)


@pytest.mark.parametrize("kind", CLASSES)
def test_an_error_needs_its_message_only(kind):
    assert str(make(kind)) == "What happened"
    assert all(value in {"", 0, None} for value in vars(make(kind)).values())


@pytest.mark.parametrize("kind", CLASSES)
def test_no_words_of_an_error_are_refused_by_a_database(kind):
    error = make(kind, **attributes_of(kind))
    said = kind("\x00 \ud83e \ud83e\udd9b \x1b[31m\n")
    assert str(said) == "\ufffd \ufffd \U0001f99b \ufffd[31m\n"
    assert len(str(kind("x" * 1_000_000))) == LONGEST_MESSAGE
    assert str(pickle.loads(pickle.dumps(kind("y" * 1_000_000)))) == str(kind("y" * 1_000_000))
    assert str(error) == "What happened"


@pytest.mark.parametrize("kind", CLASSES)
def test_words_that_an_error_is_given_later_are_as_clean_as_its_first(kind):
    attributes = attributes_of(kind)
    error = make(kind, **attributes)
    assert with_words(error, f"{error}. \x00 \ud83e \x1b[31m\n") is error
    assert str(error) == "What happened. \ufffd \ufffd \ufffd[31m\n"
    assert str(with_words(error, "x" * 1_000_000)) == "x" * (LONGEST_MESSAGE - 1) + "…"
    assert (type(error), vars(error)) == (kind, attributes)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
