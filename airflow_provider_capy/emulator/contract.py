"""The contract as the emulator uses it: which operation a request is, and what is wrong with what was sent or answered."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import yaml
from jsonschema import Draft202012Validator, FormatChecker
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from airflow_provider_capy.emulator.formats import is_email, is_uri

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_DOCUMENT = "urn:capy:contract"
_LONGEST_MESSAGE = 300
_INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,30})\Z")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with a value.

    Attributes:
        path: Where, as names and positions joined by dots; empty for the value as a whole.
        message: What.
    """

    path: str
    message: str


@dataclass(frozen=True)
class Operation:
    """One operation of the API.

    Attributes:
        id: Its ``operationId``.
        method: The HTTP method, in upper case.
        segments: Its path below the base path; a segment in braces is a parameter.
        query: The resolved schema of every query parameter.
        required: The query parameters that cannot be left out.
        body: The schema of the JSON body, or None when it takes none.
        answers: The schema of the JSON answer for every documented status.
    """

    id: str
    method: str
    segments: tuple[str, ...]
    query: Mapping[str, Mapping[str, Any]]
    required: frozenset[str]
    body: Mapping[str, Any] | None
    answers: Mapping[int, Mapping[str, Any]]

    def path_parameters(self, segments: Sequence[str]) -> dict[str, str] | None:
        """Match the segments of a request's path, decoded; None when the path is another one."""
        if len(segments) != len(self.segments):
            return None
        found: dict[str, str] = {}
        for given, expected in zip(segments, self.segments, strict=True):
            if expected.startswith("{"):
                if not given:
                    return None
                found[expected[1:-1]] = given
            elif given != expected:
                return None
        return found


class Contract:
    """The operations of an OpenAPI document, with validation.

    Args:
        document: The parsed document.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._registry: Registry[Any] = Registry().with_resource(_DOCUMENT, DRAFT202012.create_resource(document))
        self._validators: dict[int, Draft202012Validator] = {}
        self.base_path: str = urlsplit(document["servers"][0]["url"]).path
        self.operations = tuple(self._operations())

    def resolve(self, method: str, raw_path: str) -> tuple[Operation, dict[str, str]] | frozenset[str]:
        """Find the operation of a request.

        Args:
            method: The HTTP method.
            raw_path: The path below the base path, still percent-encoded.

        Returns:
            The operation and its path parameters; otherwise the methods the path knows, empty when there is no such path.
        """
        segments = [unquote(segment) for segment in raw_path.lstrip("/").split("/")]
        allowed: set[str] = set()
        for operation in self.operations:
            parameters = operation.path_parameters(segments)
            if parameters is None:
                continue
            if operation.method == method:
                return operation, parameters
            allowed.add(operation.method)
        return frozenset(allowed)

    def body_problems(self, operation: Operation, body: object) -> list[Problem]:
        """Say what is wrong with a request's JSON body."""
        return self._problems(operation.body or {}, body)

    def answer_problems(self, operation: Operation, status: int, body: object) -> list[Problem]:
        """Say what is wrong with an answer; a status the contract does not document is wrong in itself."""
        schema = operation.answers.get(status)
        if schema is None:
            return [Problem("", f"status {status} is not documented for {operation.id}")]
        return self._problems(schema, body)

    def read_query(
        self, operation: Operation, pairs: Sequence[tuple[str, str]]
    ) -> tuple[dict[str, Any], list[Problem]]:
        """Read the query parameters an operation knows; others are ignored, as the service does.

        Args:
            operation: The operation.
            pairs: Names and values as they were sent, decoded.

        Returns:
            The values in their types, defaults filled in, and what is wrong with them.
        """
        values: dict[str, Any] = {}
        problems: list[Problem] = []
        for name, text in pairs:
            schema = operation.query.get(name)
            if schema is None:
                continue
            if name in values:
                problems.append(Problem(name, "is given more than once"))
                continue
            values[name] = text
            if schema.get("type") == "integer":
                if not _INTEGER.match(text):
                    problems.append(Problem(name, f"{text[:50]!r} is not a whole number"))
                    continue
                values[name] = int(text)
            problems += [Problem(name, problem.message) for problem in self._problems(schema, values[name])]
        problems += [Problem(name, "is required") for name in sorted(operation.required - values.keys())]
        for name, schema in operation.query.items():
            if "default" in schema:
                values.setdefault(name, schema["default"])
        return values, problems

    def _problems(self, schema: Mapping[str, Any], value: object) -> list[Problem]:
        validator = self._validators.get(id(schema))
        if validator is None:
            validator = _Validator(schema, registry=self._registry, format_checker=_FORMATS)
            self._validators[id(schema)] = validator
        return [
            Problem(".".join(map(str, error.absolute_path)), error.message[:_LONGEST_MESSAGE])
            for error in validator.iter_errors(value)
        ]

    def _operations(self) -> Iterator[Operation]:
        for path, methods in self._document["paths"].items():
            for method, definition in methods.items():
                parameters = [self._resolved(item) for item in definition.get("parameters", [])]
                query = [item for item in parameters if item["in"] == "query"]
                content = definition.get("requestBody", {}).get("content", {})
                yield Operation(
                    id=definition["operationId"],
                    method=method.upper(),
                    segments=tuple(path.strip("/").split("/")),
                    query={item["name"]: self._resolved(item["schema"]) for item in query},
                    required=frozenset(item["name"] for item in query if item.get("required")),
                    body=_absolute(content["application/json"]["schema"]) if content else None,
                    answers={
                        int(status): _absolute(self._resolved(answer)["content"]["application/json"]["schema"])
                        for status, answer in definition["responses"].items()
                    },
                )

    def _resolved(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        while "$ref" in value:
            target: Any = self._document
            for key in value["$ref"].removeprefix("#/").split("/"):
                target = target[key]
            value = target
        return value


@cache
def contract() -> Contract:
    """Load the contract that ships with the package; once per process."""
    text = files("airflow_provider_capy.emulator").joinpath("contract.yaml").read_text(encoding="utf-8")
    return Contract(yaml.safe_load(text))


def _absolute(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    reference = schema.get("$ref")
    return {"$ref": _DOCUMENT + reference} if isinstance(reference, str) else schema


def _pattern(
    _validator: Draft202012Validator, pattern: str, value: object, _schema: object
) -> Iterator[ValidationError]:
    # In the contract's dialect "$" is the very end; in Python it would let a trailing line break pass.
    exact = pattern[:-1] + r"\Z" if pattern.endswith("$") else pattern
    if isinstance(value, str) and not re.search(exact, value):
        yield ValidationError(f"{value[:100]!r} does not match {pattern!r}")


_FORMATS = FormatChecker(formats=())
_FORMATS.checks("email")(is_email)
_FORMATS.checks("uri")(is_uri)
_Validator: type[Draft202012Validator] = extend(  # type: ignore[no-untyped-call]  # jsonschema leaves it untyped
    Draft202012Validator, {"pattern": _pattern}
)
