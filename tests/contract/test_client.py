"""The client reads whatever the contract allows Capy to answer, and sends nothing that the contract forbids."""

import asyncio
import http.server
import json
import re
import threading
from importlib.resources import files
from types import NoneType

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from airflow_provider_capy.api import AsyncCapyClient, CapyClient, ClientSettings, RetryLimits, calls
from airflow_provider_capy.api.requests import CreateThreadBody, ListThreadsQuery, checked
from airflow_provider_capy.emulator.contract import contract
from airflow_provider_capy.exceptions import CapyAPIError, CapyResponseError, api_error_class
from airflow_provider_capy.foreign_text import clean_json, clean_text

EXAMPLES = 25
OPERATIONS = {operation.id: operation for operation in contract().operations}
SAFE_INTEGER = 2**53 - 1

# What breaks readers: control characters, both ends of every plane, right-to-left marks, JSON in JSON, and sheer length.
NASTY = [
    *("", " ", "\x00", "\x1f\x7f\x80\x9f", "\ufeff", "\ufffe\uffff", "\u2028\u2029", "\u202e", "e\u0301", "\U0010ffff"),
    *("null", "true", "NaN", "1e400", '"', "\\", "\\ud83e", "\\u0000", "{}", "[[", "</script>", "%00%2e%2e/", "\r\n\r\n"),
    *("\U0001f9ab" * 1000, "x" * 100_000, "{{ 1/0 }}", "${jndi:x}", "2026-11-22T04:00:00Z", "\ud83e\udd9b".encode("utf-16", "surrogatepass").decode("utf-16")),
]  # fmt: skip
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(
    [text for text in NASTY if len(text) < 5_000]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)


DOCUMENT = yaml.safe_load(files("airflow_provider_capy.emulator").joinpath("contract.yaml").read_text())


def schema_of(name):
    return DOCUMENT["components"]["schemas"][name]


TAG_NAMES = st.from_regex(schema_of("TagName")["pattern"].replace("$", r"\Z"))
FILLED_TEXTS = TEXTS.filter(bool)
SHORT = st.integers(0, 3)


@st.composite
def allowed_by(draw, schema):
    """Make whatever a schema of the contract allows, its texts as nasty as they may be."""
    return drawn(draw, schema)


def drawn(draw, schema):
    if "$ref" in schema:
        return drawn(draw, schema_of(schema["$ref"].rpartition("/")[2]))
    if "anyOf" in schema:
        return drawn(draw, draw(st.sampled_from(schema["anyOf"])))
    if "enum" in schema:
        return draw(st.sampled_from(schema["enum"]))
    return BY_TYPE[schema.get("type")](draw, schema)


def drawn_object(draw, schema):
    return {
        name: drawn(draw, each)
        for name, each in schema["properties"].items()
        if name in schema["required"] or draw(st.booleans())
    }


def drawn_text(draw, schema):
    if "pattern" in schema:
        return draw(TAG_NAMES)
    return draw(FILLED_TEXTS if schema.get("minLength") else TEXTS)


BY_TYPE = {
    "object": drawn_object,
    "array": lambda draw, schema: [drawn(draw, schema["items"]) for _ in range(draw(SHORT))],
    "integer": lambda draw, schema: draw(
        st.sampled_from([schema["minimum"], schema["maximum"]]) | st.integers(schema["minimum"], schema["maximum"])
    ),
    "string": drawn_text,
    "boolean": lambda draw, _schema: draw(st.booleans()),
    "null": lambda _draw, _schema: None,
    None: lambda draw, _schema: draw(JSON),
}


class MockCapy:
    """A real HTTP server that answers what it is told to."""

    def __init__(self):
        outer = self
        self.status, self.body = 200, b""

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                self.rfile.read(int(self.headers.get("content-length", 0)))
                status, body = outer.status, outer.body
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_GET = do_POST = answer  # noqa: N815 - the standard library's names

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/api"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._thread.join()
        self._server.socket.close()

    def answers(self, status, value, *, ascii_only=False):
        self.status, self.body = status, json.dumps(value, ensure_ascii=ascii_only).encode()


@pytest.fixture(scope="module")
def mock():
    with MockCapy() as server:
        yield server


@pytest.fixture(scope="module", params=["sync", "async"])
def ask(request, mock):
    """Send a call with either client, and return its answer."""
    given = ClientSettings(SecretStr("capy_t"), mock.url, retry=RetryLimits(attempts=1))
    if request.param == "sync":
        with CapyClient(given) as client:
            yield client.send
        return
    loop = asyncio.new_event_loop()
    client = AsyncCapyClient(given)
    yield lambda call: loop.run_until_complete(client.send(call))
    loop.run_until_complete(client.close())
    loop.close()


CALLS = {
    "createAndStartThread": calls.create_thread(checked(CreateThreadBody, project_id="p", prompt="do it")),
    "getThread": calls.get_thread("jam_1"),
    "listThreads": calls.list_threads(checked(ListThreadsQuery, project_id="p")),
    "stopThread": calls.stop_thread("jam_1"),
}
quickly = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)


def answer_schema(operation_id):
    return OPERATIONS[operation_id].answers[200]


def with_ids(answer):
    """Give every thread in an answer an id that can stand in a path: the contract allows any text, Capy uses such."""
    for thread in answer.get("items", [answer]):
        thread["id"] = "jam_1"
    return answer


def same(model, answer):
    """Compare through the typed attributes, field by field, down to the leaves."""
    if isinstance(model, BaseModel):
        assert model.model_extra == {}
        names = {field.alias: name for name, field in type(model).model_fields.items()}
        assert answer.keys() <= names.keys()
        return all(same(getattr(model, names[key]), value) for key, value in answer.items())
    if isinstance(model, list):
        return len(model) == len(answer) and all(same(one, other) for one, other in zip(model, answer, strict=True))
    # A cursor stays as it came, every other text is clean.
    return type(model) is type(answer) and (model == answer or (isinstance(model, str) and model == clean_text(answer)))


@pytest.mark.parametrize("operation_id", CALLS)
@pytest.mark.parametrize("ascii_only", [False, True])
def test_every_answer_that_the_contract_allows_is_read_to_its_last_field(ask, mock, operation_id, ascii_only):
    seen = []

    @quickly
    @given(allowed_by(answer_schema(operation_id)).map(with_ids))
    def check(answer):
        assert contract().answer_problems(OPERATIONS[operation_id], 200, answer) == []
        mock.answers(200, answer, ascii_only=ascii_only)
        assert same(ask(CALLS[operation_id]), answer)
        seen.append(answer)

    check()
    assert len(seen) >= EXAMPLES // 2


@pytest.mark.parametrize("text", NASTY, ids=range(len(NASTY)))
@pytest.mark.parametrize("operation_id", CALLS)
def test_every_text_field_may_hold_any_text(ask, mock, operation_id, text):
    def filled(schema):
        if "$ref" in schema:
            return filled(schema_of(schema["$ref"].rpartition("/")[2]))
        if "anyOf" in schema:
            return filled(schema["anyOf"][0])
        if schema["type"] == "object":
            return {name: filled(each) for name, each in schema["properties"].items()}
        if schema["type"] == "array":
            return [filled(schema["items"])]
        # Enums and patterns are filled as well: the next version may say anything.
        return {"string": text, "integer": schema.get("maximum"), "boolean": True}[schema["type"]]

    answer = filled(answer_schema(operation_id))
    mock.answers(200, with_ids(answer))
    if "nextCursor" in answer:
        # It goes back to Capy as it came.
        assert ask(CALLS[operation_id]).next_cursor == answer.pop("nextCursor")
        mock.answers(200, answer)
    assert same(ask(CALLS[operation_id]), answer)


@pytest.mark.parametrize("operation_id", CALLS)
def test_half_characters_anywhere_break_nothing(ask, mock, operation_id):
    @quickly
    @given(allowed_by(answer_schema(operation_id)).map(with_ids))
    def check(answer):
        # A cut in the middle of a pair, as a service that counts UTF-16 makes it.
        halved = json.dumps(answer).replace('": "', '": "\\ud83e').replace("\\ud83ejam_1", "jam_1")
        # What has to go back as it came is refused instead.
        halved = halved.replace('"nextCursor": "\\ud83e', '"nextCursor": "').encode()
        mock.status, mock.body = 200, halved
        json.dumps(ask(CALLS[operation_id]).model_dump(), ensure_ascii=False).encode()

    check()


@pytest.mark.parametrize("operation_id", CALLS)
def test_fields_of_a_later_version_are_kept(ask, mock, operation_id):
    @quickly
    @given(allowed_by(answer_schema(operation_id)).map(with_ids), st.dictionaries(TEXTS.map("x_{}".format), JSON))
    def check(answer, more):
        mock.answers(200, answer | more)
        assert ask(CALLS[operation_id]).model_extra == clean_json(more)

    check()


@pytest.mark.parametrize("operation_id", CALLS)
def test_every_refusal_is_read_whatever_it_says(ask, mock, operation_id):
    statuses = sorted({*OPERATIONS[operation_id].answers, 409, 429, 503} - {200})

    @quickly
    @given(st.sampled_from(statuses), allowed_by(schema_of("Failure")), st.sampled_from(["not_found", "e5", None]))
    def check(status, answer, code):
        answer["error"]["code"] = code or answer["error"]["code"]
        mock.answers(status, answer)
        capys = re.fullmatch("[a-z][a-z0-9_]{0,63}", answer["error"]["code"])
        with pytest.raises(CapyAPIError if capys or status in {429, 500, 503} else CapyResponseError) as caught:
            ask(CALLS[operation_id])
        error = caught.value
        assert error.status_code == status
        if isinstance(error, CapyResponseError):
            return
        assert type(error) is api_error_class(status)
        assert error.status_code == status
        assert error.code == (answer["error"]["code"] if capys else "")
        assert error.details == clean_json(answer["error"].get("details"))
        # White space around it is none of its words.
        assert clean_text(answer["error"]["message"])[:500].strip() in str(error)
        assert len(str(error)) < 2000

    check()


@pytest.mark.parametrize("operation_id", CALLS)
def test_what_is_no_answer_of_capy_at_all_is_one_of_our_errors(ask, mock, operation_id):
    @quickly
    @given(st.binary(max_size=200) | JSON.map(json.dumps).map(str.encode))
    def check(body):
        mock.status, mock.body = 200, body
        outcome = None
        try:
            outcome = ask(CALLS[operation_id])
        except CapyResponseError as error:
            outcome = error
        assert isinstance(outcome, (CALLS[operation_id].response, CapyResponseError))
        assert getattr(outcome, "status_code", 200) == 200

    check()


def given_or_not(**fields):
    return st.fixed_dictionaries({}, optional=fields)


EMAILS = st.from_regex(r"\A[a-z0-9_'+-]{1,20}[a-z0-9_+-]@([a-z][a-z0-9]{0,10}\.){1,3}[a-z]{2,6}\Z")
WORDS = TEXTS.filter(str.strip)
MODES = st.sampled_from(schema_of("Reasoning")["properties"]["mode"]["enum"])
MODELS = st.sampled_from(schema_of("Model")["enum"])
SPEEDS = st.sampled_from(["fast", "standard"])
TAGS = st.from_regex(r"\A[a-z0-9][a-z0-9_-]{0,63}\Z")
BODIES = given_or_not(
    impersonate_user_email=EMAILS | st.none(),
    model=MODELS | st.none(),
    speed=SPEEDS,
    reasoning=MODES | st.builds(dict, mode=MODES),
    build_model=MODELS,
    build_speed=SPEEDS | st.none(),
    build_reasoning=MODES,
    repos=st.lists(st.builds(dict, repo_full_name=WORDS, branch=WORDS), max_size=3) | st.none(),
    browser_snapshot_ids=st.lists(TEXTS, max_size=3),
    attachment_urls=st.lists(st.from_regex(r"\Ahttps://[a-z]{1,9}\.com/[a-z0-9/?=&%2]{0,0}[a-z0-9/?=&]{0,20}\Z"), max_size=3),
    tags=st.lists(TAGS, max_size=20),
    slack=WORDS | st.builds(dict, channel=WORDS),
    reliability_investigation_id=st.from_regex(r"\Arel_[a-f0-9]{40}\Z"),
)  # fmt: skip


@settings(quickly, max_examples=150)
@given(WORDS, WORDS, BODIES)
def test_a_create_that_is_sent_is_one_that_the_contract_takes(project_id, prompt, fields):
    sent = calls.create_thread(checked(CreateThreadBody, project_id=project_id, prompt=prompt, **fields)).body
    assert contract().body_problems(OPERATIONS["createAndStartThread"], sent) == []
    assert (sent["projectId"], sent["prompt"]) == (project_id, prompt)
    assert len(sent) == 2 + sum(value is not None for value in fields.values())


def enum_of(name):
    return st.sampled_from(OPERATIONS["listThreads"].query[name]["enum"])


INTEGERS = st.integers(-SAFE_INTEGER, SAFE_INTEGER)
FILTERS = given_or_not(
    limit=st.integers(1, 100) | st.integers(1, 100).map(str),
    cursor=TEXTS,
    status=enum_of("status"),
    pr_number=INTEGERS | INTEGERS.map(str),
    branch=TEXTS,
    slack_thread_ts=TEXTS,
    author_email=EMAILS,
    participant_id=WORDS,
    origin=enum_of("origin"),
    pr_state=enum_of("prState"),
    tag=WORDS,
    slack_channel_id=WORDS,
    q=TEXTS | st.none(),
)


@settings(quickly, max_examples=150)
@given(WORDS, FILTERS)
def test_a_list_that_is_sent_is_one_that_the_contract_takes(project_id, filters):
    sent = calls.list_threads(checked(ListThreadsQuery, project_id=project_id, **filters)).params
    assert all(type(value) in {str, int} for value in sent.values())
    pairs = [(name, str(value)) for name, value in sent.items()]
    values, problems = contract().read_query(OPERATIONS["listThreads"], pairs)
    assert problems == []
    assert {name: values[name] for name in sent} == sent
    assert len(sent) == 1 + sum(not isinstance(value, NoneType) for value in filters.values())


def test_the_request_models_have_exactly_the_contracts_fields():
    assert {field.alias for field in CreateThreadBody.model_fields.values()} == set(
        schema_of("NewThread")["properties"]
    )
    assert {field.alias for field in ListThreadsQuery.model_fields.values()} == set(OPERATIONS["listThreads"].query)


def test_every_operation_of_the_contract_has_one_call():
    assert {call.operation for call in CALLS.values()} == set(OPERATIONS)
    for operation in OPERATIONS.values():
        call = CALLS[operation.id]
        path = "/".join("jam_1" if part.startswith("{") else part for part in operation.segments)
        assert (call.method, call.path) == (operation.method, f"/{path}")
