"""Hosted models against a real server that misbehaves: errors are named, counted and never answers; nothing is paid
for twice; the key goes nowhere."""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from endpoint import Said, Speak, completion, failure, serving
from tuneworth.data import Example, Message
from tuneworth.errors import InputError, MachineError
from tuneworth.evaluation.hosted import HostedModel, check_keys, endpoint_of
from tuneworth.evaluation.local import Scoring
from tuneworth.evaluation.metrics import choose_metric, score
from tuneworth.evaluation.prompted import answers_missing
from tuneworth.evaluation.prompts import PromptForm
from tuneworth.evaluation.records import RawAnswer
from tuneworth.inference.hosted import AT_ONCE, HostedChat
from tuneworth.inference.hosted import Endpoint as Hosted
from tuneworth.store.replies import Replies
from tuneworth.task import Provider, Task

LABELS = ("late", "pay")
ACCURACY = choose_metric(Task(), "classification", LABELS)
SCORING = Scoring(ACCURACY, LABELS, 8, "constrained")
FORM = PromptForm("full", "Sort.")
KEY = "sk-very-secret-0123456789"


def rows(count: int) -> list[Example]:
    return [Example(f"r{n}", (Message("user", f"text {n}"),), "late", "f", n) for n in range(count)]


def provider(base_url: str, **changes: Any) -> Provider:
    return Provider.model_validate({"base_url": base_url, "model": "m", **changes})


def hosted(base_url: str, folder: Path, *, timeout: float = 5.0, retries: int = 2, **changes: Any) -> HostedModel:
    known = provider(base_url, **changes)
    chat = HostedChat(Hosted("them", base_url, "m", KEY), timeout_seconds=timeout, retries=retries)
    return HostedModel(chat, Replies(folder / "replies.jsonl"), known)


def always(said: Said | dict[str, Any]) -> Speak:
    return lambda method, path, body: said


def test_what_is_asked_is_the_conversation_greedily_and_the_answer_comes_with_its_tokens(tmp_path: Path) -> None:
    with serving(always(completion("late"))) as server:
        model = hosted(server.base_url, tmp_path)
        (answer,) = model.answer(FORM, rows(1), model.suited(SCORING))
        method, path, body, headers = server.requests[0]
    assert (method, path) == ("POST", "/v1/chat/completions")
    messages = [{"role": "system", "content": "Sort."}, {"role": "user", "content": "text 0"}]
    assert body == {"model": "m", "messages": messages, "max_tokens": 32, "temperature": 0}
    assert headers["authorization"] == f"Bearer {KEY}"
    assert (answer.text, answer.finish_reason, answer.input_tokens, answer.output_tokens) == ("late", "stop", 11, 3)


def test_without_a_key_none_is_sent_and_nothing_of_another_account(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "another's")
    monkeypatch.setenv("OPENAI_ORG_ID", "my organisation")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "my project")
    with serving(always(completion("late"))) as server:
        known = provider(server.base_url)
        model = HostedModel(HostedChat(endpoint_of("them", known)), Replies(tmp_path / "r.jsonl"), known)
        assert model.answer(FORM, rows(1), SCORING)[0].text == "late"
        sent = server.requests[0][3]
    assert not {"authorization", "openai-organization", "openai-project"} & set(sent)


def test_answers_come_in_the_order_of_the_rows_and_several_are_under_way_at_one_time(tmp_path: Path) -> None:
    under_way, most = 0, 0

    def speak(method: str, path: str, body: Any) -> dict[str, Any]:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        text = body["messages"][-1]["content"]
        time.sleep(0.02 if text.endswith("0") else 0.005)
        under_way -= 1
        return completion(f"echo {text}")

    with serving(speak) as server:
        answers = hosted(server.base_url, tmp_path).answer(FORM, rows(40), SCORING)
    assert [answer.text for answer in answers] == [f"echo text {n}" for n in range(40)]
    assert 1 < most <= AT_ONCE


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_failure_is_asked_again_and_is_no_error(tmp_path: Path, status: int) -> None:
    seen = Counter[str]()

    def speak(method: str, path: str, body: Any) -> Said | dict[str, Any]:
        text = body["messages"][-1]["content"]
        seen[text] += 1
        return failure(status, "later", retry_after_ms="5") if seen[text] < 3 else completion("late")

    with serving(speak) as server:
        answers = hosted(server.base_url, tmp_path).answer(FORM, rows(4), SCORING)
    assert [(answer.text, answer.error) for answer in answers] == [("late", None)] * 4
    assert set(seen.values()) == {3}


def test_a_retry_after_in_seconds_is_waited_for(tmp_path: Path) -> None:
    times: list[float] = []

    def speak(method: str, path: str, body: Any) -> Said | dict[str, Any]:
        times.append(time.monotonic())
        return failure(429, "later", retry_after="1") if len(times) == 1 else completion("late")

    with serving(speak) as server:
        assert hosted(server.base_url, tmp_path).answer(FORM, rows(1), SCORING)[0].error is None
    assert times[1] - times[0] >= 0.95


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (failure(429, "slow down", retry_after_ms="1"), "HTTP 429: .*slow down"),
        (failure(500, "broken", retry_after_ms="1"), "HTTP 500: .*broken"),
        (failure(400, "the prompt is too long"), "HTTP 400: .*the prompt is too long"),
        (Said(b"<html>Bad gateway", 502, {"content-type": "text/html", "retry-after-ms": "1"}), "HTTP 502: "),
        (Said(b'{"choices": [{"mess'), "no JSON: .*choices"),
        (Said(b"<html>hello", 200, {"content-type": "text/html"}), "no JSON: .*hello"),
        (Said(b""), "no JSON"),
        ([1, 2], "no JSON object"),
        ("late", "no JSON object"),
        ({"choices": []}, "no choices"),
        ({"choices": None}, "no choices"),
        ({"choices": [None]}, "no choices"),
        ({"choices": [{"message": None}]}, "no message"),
        ({"error": {"message": "model overloaded"}}, "the endpoint reports: model overloaded"),
        (completion(None), "no text .*null"),
        (completion(None, "tool_calls", tool_calls=[]), "no text .*tool_calls"),
        ({**completion("x"), "choices": [{"message": {"content": ["a"]}, "finish_reason": "stop"}]}, "no text .*list"),
        (completion("half an ans", "content_filter"), "refused by the endpoint: content_filter"),
        (completion(None, "stop", refusal="I will not"), "refused by the endpoint: I will not"),
    ],
)
def test_what_is_no_answer_is_an_error_that_says_what_it_is_and_scores_nothing(
    tmp_path: Path, said: Any, error: str
) -> None:
    said = said if isinstance(said, Said) else Said(said)
    with serving(always(said)) as server:
        answers = hosted(server.base_url, tmp_path, retries=1).answer(FORM, rows(2), SCORING)
    (one, other) = score(rows(2), answers, ACCURACY)
    assert one.finish_reason == other.finish_reason == "error"
    assert re.search(error, str(one.error)), one.error
    assert (one.score, one.raw) == (0.0, "")
    assert not (tmp_path / "replies.jsonl").exists()  # an error is asked again by a continued run


def test_an_endpoint_slower_than_the_limit_is_named_so(tmp_path: Path) -> None:
    def slow(method: str, path: str, body: Any) -> dict[str, Any]:
        time.sleep(0.5 if body["messages"][-1]["content"] == "text 1" else 0)
        return completion("late")

    with serving(slow) as server:
        model = hosted(server.base_url, tmp_path, timeout=0.15, retries=0)
        answers = model.answer(FORM, rows(3), SCORING)
    assert [answer.error for answer in answers] == [None, "no answer within 0.15 s", None]


def test_law_51_a_cut_answer_is_truncated_and_an_empty_one_empty_not_an_error(tmp_path: Path) -> None:
    def speak(method: str, path: str, body: Any) -> dict[str, Any]:
        text = body["messages"][-1]["content"]
        return completion(*{"text 0": ("la", "length"), "text 1": (None, "length"), "text 2": ("", "stop")}[text])

    with serving(speak) as server:
        answers = hosted(server.base_url, tmp_path).answer(FORM, rows(3), SCORING)
    assert [(a.text, a.finish_reason, a.error) for a in answers] == [
        ("la", "length", None),
        ("", "length", None),
        ("", "stop", None),
    ]


def test_nothing_is_paid_for_twice_and_a_half_written_line_is_asked_again(tmp_path: Path) -> None:
    with serving(always(completion("late"))) as server:
        first = hosted(server.base_url, tmp_path).answer(FORM, rows(5), SCORING)
        assert len(server.requests) == 5
        assert hosted(server.base_url, tmp_path).answer(FORM, rows(5), SCORING) == first
        assert len(server.requests) == 5
        path = tmp_path / "replies.jsonl"
        path.write_bytes(path.read_bytes()[:-20])  # as a killed process may leave it
        assert len(hosted(server.base_url, tmp_path).answer(FORM, rows(5), SCORING)) == 5
        assert len(server.requests) == 6
        hosted(server.base_url, tmp_path).answer(PromptForm("full", "Other."), rows(5), SCORING)
        assert len(server.requests) == 11
        hosted(server.base_url, tmp_path, model="other").answer(FORM, rows(1), SCORING)
        assert len(server.requests) == 12
    assert len(path.read_bytes().splitlines()) == 11


def test_the_same_request_twice_is_sent_once(tmp_path: Path) -> None:
    with serving(always(completion("late"))) as server:
        answers = hosted(server.base_url, tmp_path).answer(FORM, [*rows(2), *rows(2)], SCORING)
        assert len(server.requests) == 2
    assert len(answers) == 4


def test_the_key_is_in_no_file_and_no_error(tmp_path: Path) -> None:
    said = iter([failure(400, f"wrong: {KEY}"), Said(f"not JSON {KEY}".encode()), completion(f"your key is {KEY}")])
    with serving(lambda method, path, body: next(said)) as server:
        model = hosted(server.base_url, tmp_path, retries=0)
        answers = [model.answer(FORM, rows(1), SCORING)[0] for _ in range(3)]
        told = repr((answers, model.details(FORM, rows(1), SCORING), endpoint_of("x", provider(server.base_url))))
    assert KEY not in told
    assert told.count("[key]") >= 3
    assert all(KEY.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert KEY not in repr(Hosted("x", "http://x", "m", KEY))


def test_a_wrong_key_ends_the_arm_after_a_few_requests_and_not_after_all(tmp_path: Path) -> None:
    with serving(always(failure(401, "no such key"))) as server:
        answers = hosted(server.base_url, tmp_path).answer(FORM, rows(200), SCORING)
        assert len(server.requests) <= 2 * AT_ONCE
    assert all(answer.error for answer in answers)
    why = answers_missing(score(rows(200), answers, ACCURACY))
    assert why is not None
    assert "200 of 200 test rows could not be asked" in why
    assert "HTTP 401: " in why


def test_an_endpoint_that_dies_is_not_asked_for_every_row(tmp_path: Path) -> None:
    model = hosted("http://127.0.0.1:9/v1", tmp_path, retries=0)
    answers = model.answer(FORM, rows(500), SCORING)
    assert str(answers[0].error).startswith("no connection: ")
    assert sum(str(answer.error).startswith("not asked, since: no connection") for answer in answers) > 400


def test_a_single_failed_row_is_counted_and_more_than_one_in_a_hundred_is_a_failed_arm() -> None:
    def answers(failed: int, of: int) -> Any:
        raw = [_raw("HTTP 500: x" if n < failed else None) for n in range(of)]
        return score(rows(of), raw, ACCURACY)

    assert answers_missing(answers(1, 20)) is None
    assert answers_missing(answers(2, 200)) is None
    assert answers_missing(answers(3, 200)) is not None
    assert "2 of 20" in str(answers_missing(answers(2, 20)))


def _raw(error: str | None) -> RawAnswer:
    return RawAnswer("" if error else "late", "error" if error else "stop", "h", 0 if error else 9, 1, 0.1, error)


@pytest.mark.parametrize(
    ("complaint", "wanted"),
    [
        ("Unsupported: 'max_tokens'. Use 'max_completion_tokens'.", {"max_completion_tokens", "temperature"}),
        ("'temperature' does not support 0 with this model", {"max_tokens"}),
    ],
)  # fmt: skip
def test_a_model_that_refuses_a_parameter_is_asked_without_it(tmp_path: Path, complaint: str, wanted: set[str]) -> None:
    def speak(method: str, path: str, body: Any) -> Said | dict[str, Any]:
        return completion("late") if set(body) - {"model", "messages"} == wanted else failure(400, complaint)

    with serving(speak) as server:
        answers = hosted(server.base_url, tmp_path).answer(FORM, rows(30), SCORING)
        assert len(server.requests) <= 30 + AT_ONCE
    assert all(answer.text == "late" for answer in answers)


def test_costs_are_tokens_at_the_providers_prices_and_unknown_without_them(tmp_path: Path) -> None:
    with serving(always(completion("late"))) as server:
        priced = hosted(server.base_url, tmp_path, usd_per_million_input=2, usd_per_million_output=10)
        answers = priced.answer(FORM, rows(4), SCORING)
        assert priced.usd(answers) == pytest.approx(4 * (11 * 2 + 3 * 10) / 1e6)
        unpriced = hosted(server.base_url, tmp_path)
        assert unpriced.usd(answers) is None
        assert unpriced.details(FORM, rows(1), SCORING)["token_price"] is None
        assert priced.details(FORM, rows(1), SCORING)["token_price"]["usd_per_million_output"] == 10


def test_an_endpoint_that_counts_no_tokens_has_no_cost_instead_of_a_free_one(tmp_path: Path) -> None:
    said = {key: value for key, value in completion("late").items() if key != "usage"}
    with serving(always(said)) as server:
        model = hosted(server.base_url, tmp_path, usd_per_million_input=2, usd_per_million_output=10)
        answers = model.answer(FORM, rows(2), SCORING)
        details = model.details(FORM, rows(2), SCORING)
        assert model.usd(answers) is None
    assert (details["token_price"], details["input_tokens"], details["output_tokens"]) == (None, None, None)


def test_a_missing_key_is_one_message_that_names_every_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SET_KEY", "x")
    monkeypatch.setenv("EMPTY_KEY", " ")
    named = {name: provider("http://x", api_key_env=f"{name.upper()}_KEY") for name in ("set", "unset", "empty")}
    with pytest.raises(InputError) as caught:
        check_keys({**named, "open": provider("http://x")})
    assert [problem.where for problem in caught.value.problems] == [
        "providers.unset.api_key_env",
        "providers.empty.api_key_env",
    ]


def test_before_anything_starts_an_unreachable_endpoint_is_named_and_a_refusal_is_the_users_to_cure(
    tmp_path: Path,
) -> None:
    with pytest.raises(MachineError, match=r"providers\.them \(http://127\.0\.0\.1:9/v1\).*no connection"):
        hosted("http://127.0.0.1:9/v1", tmp_path, retries=0).answer_rate(FORM, rows(4), SCORING)
    with serving(always(failure(404, "no such model"))) as server, pytest.raises(InputError, match="no such model"):
        hosted(server.base_url, tmp_path).answer_rate(FORM, rows(4), SCORING)
