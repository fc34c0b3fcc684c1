"""Chat templates: jinja2 in its immutable sandbox, with the few names that templates in the field use."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tuneworth.errors import InputError

# For base models that come without a template: plain text markers, no new tokens, stored with the model.
PLAIN_TEMPLATE = """\
{% for message in messages %}\
{% if message['role'] == 'assistant' %}{{ 'Answer:' + message['content'] + eos_token + '\\n' }}\
{% elif message['role'] == 'system' %}{{ message['content'] + '\\n\\n' }}\
{% else %}{{ 'Question: ' + message['content'] + '\\n' }}{% endif %}\
{% endfor %}\
{% if add_generation_prompt %}{{ 'Answer:' }}{% endif %}"""

_MAXIMUM_CHARACTERS = 50_000_000
# The day that templates which write the date are told (Llama 3.1's own default). Today's would train, serve and
# continue with a different prompt every day.
_DAY = datetime(2024, 7, 26)


class _Generation(Extension):
    """`{% generation %}` marks assistant text in some templates; our masks do not need it, so it is transparent."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """A compiled chat template with the tokenizer's named special tokens (`bos_token`, ...)."""

    def __init__(self, source: str, special: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _DAY.strftime
        self.source = source
        self._special = dict(special)
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise InputError(f"the chat template does not compile: {error}", where="chat template") from None

    def render(
        self, messages: Sequence[Mapping[str, Any]], *, generate: bool, tools: Sequence[Mapping[str, Any]] = ()
    ) -> str:
        """The conversation as text; with `generate`, up to where the assistant starts to write.

        Raises InputError with the template's own words when it refuses the conversation.
        """
        try:
            text = self._template.render(
                messages=list(messages),
                add_generation_prompt=generate,
                tools=list(tools) or None,
                documents=None,
                **self._special,
            )
        except Exception as error:  # a template is a program of somebody else's: anything can go wrong in it
            roles = ", ".join(str(message.get("role")) for message in messages)
            raise InputError(f"the chat template refuses roles [{roles}]: {error}", where="chat template") from None
        if len(text) > _MAXIMUM_CHARACTERS:
            raise InputError("the rendered conversation is over 50 million characters", where="chat template")
        return text


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
