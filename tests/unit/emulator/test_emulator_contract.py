"""What the contract asks of texts and documents is checked to the letter."""

import pytest

from airflow_provider_capy.emulator.contract import contract
from airflow_provider_capy.emulator.formats import is_email, is_uri
from airflow_provider_capy.emulator.messages import BadJsonError, parse


@pytest.mark.parametrize(
    "text",
    [
        "https://example.com/a?b=c#d",
        "urn:isbn:1",
        "a:",
        "http://[::1]:8080/",
        "http://[v1.x]/",
        "file:///tmp/x",
        "http://u:p@h/%20",
    ],
)
def test_a_uri_is_accepted(text):
    assert is_uri(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "example.com",
        "//example.com",
        "1a:b",
        "http://a b",
        "http://[::zz]/",
        "http://a/%zz",
        "a:b#c#d",
        "a:é",
        "a:b\n",
        "http://h:port/",
    ],
)
def test_what_is_no_uri_is_refused(text):
    assert not is_uri(text)


@pytest.mark.parametrize("text", ["a@b.co", "o'neil+x_@mail.example.com", "a@xn--bcher-kva.example"])
def test_an_address_is_accepted(text):
    assert is_email(text)


@pytest.mark.parametrize(
    "text",
    ["", "a", "@b.co", "a@", "a@-b.co", "a@b-.co", "a@b..co", "a@ab--c.co", f"{'a' * 65}@b.co", f"a@{'b' * 64}.co"],
)
def test_what_is_no_address_is_refused(text):
    assert not is_email(text)


def test_formats_are_about_text_only():
    assert is_uri(3)
    assert is_email(None)


@pytest.mark.parametrize("text", ["[" * 60 + "]" * 60, "[" * 100_000, "Infinity", "1e999", "1" * 5000, "{'a': 1}", ""])
def test_what_is_no_sound_json_is_refused(text):
    with pytest.raises(BadJsonError):
        parse(text)


def test_json_of_ordinary_depth_is_parsed():
    assert parse('{"a": [{"b": [1]}]}') == {"a": [{"b": [1]}]}


def test_the_operations_are_the_four_of_the_service():
    found = {(operation.id, operation.method, "/".join(operation.segments)) for operation in contract().operations}
    assert found == {
        ("createAndStartThread", "POST", "v1/threads"),
        ("listThreads", "GET", "v1/threads"),
        ("getThread", "GET", "v1/threads/{threadId}"),
        ("stopThread", "POST", "v1/threads/{threadId}/stop"),
    }
    assert contract().base_path == "/api"


def test_an_answer_of_an_undocumented_status_is_a_problem_in_itself():
    operation = contract().operations[0]
    (problem,) = contract().answer_problems(operation, 418, {})
    assert "418" in problem.message
