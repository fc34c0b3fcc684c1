"""The audit's answers on domain, relevance and size, in words that an application developer can act on."""

from __future__ import annotations

import json
import random

from topics import TOPICS, by_topic, example, foreign_texts, texts_on
from tuneworth.data import Audit, Example, audit, fitness


def rows_of(count: int, file: str, seed: int = 0) -> list[Example]:
    labelled = [(text, topic) for topic in TOPICS for text in texts_on(topic, count, seed)]
    random.Random(seed).shuffle(labelled)
    return [example(line, text, topic, file) for line, (text, topic) in enumerate(labelled, 2)]


TRAIN, TEST = rows_of(150, "train.csv"), rows_of(20, "test.csv", seed=1)


def audited(train: list[Example], test: list[Example], traffic: list[Example], kind: str = "classification") -> Audit:
    return audit(train, [], test, kind=kind, vectorise=by_topic, traffic=traffic)


def test_requests_that_are_not_covered_are_counted_with_an_example():
    strange = [example(line, text, "", "traffic.csv") for line, text in enumerate(foreign_texts(60), 82)]
    usual = [example(row.line, row.text, "", "traffic.csv") for row in TEST]
    found = audited(TRAIN, TEST, usual + strange)
    (finding,) = [finding for finding in found.findings if finding.code == "uncovered"]
    assert found.answers["domain"].status == "fail"
    assert "of 140 requests (" in finding.message
    assert "ask about things your examples do not cover; for example" in finding.message
    assert {row.line for row in finding.rows} >= {row.line for row in strange}
    assert {row.file for row in finding.rows} == {"traffic.csv"}


def test_held_out_rows_stand_for_requests_and_the_answer_says_so():
    found = audited(TRAIN, TEST, [])
    assert found.answers["domain"].status == "pass"
    assert "your test rows stand for real requests here" in found.answers["domain"].why
    assert "data.traffic" in found.answers["domain"].why


def test_without_requests_domain_is_not_measured_and_says_what_is_missing():
    found = audited(TRAIN, [], [])
    assert found.answers["domain"].status == "not-measured"
    assert "data.traffic" in found.answers["domain"].why


def test_planted_rows_are_named_and_a_warning_from_a_share_on(monkeypatch):
    strange = [example(700 + n, text, list(TOPICS)[n % 4], "train.csv") for n, text in enumerate(foreign_texts(16))]
    found = audited([*TRAIN, *strange], [], [])
    (finding,) = [finding for finding in found.findings if finding.code == "off-topic"]
    assert {row.line for row in finding.rows} <= {row.line for row in strange}
    assert finding.count >= 12
    assert "seem not to belong to the task" in found.answers["relevance"].why
    assert found.answers["relevance"].status == "warn"
    assert "so few" not in found.answers["relevance"].why
    monkeypatch.setattr(fitness, "OFF_TOPIC_WARN", 0.05)
    found = audited([*TRAIN, *strange], [], [])
    assert found.answers["relevance"].status == "pass"
    assert "so few are found in clean data too" in found.answers["relevance"].why


def test_spellings_and_odd_forms_belong_to_relevance_and_not_to_quality():
    labels = [example(900, "card lost please", "Card")]
    found = audited([*TRAIN, *labels], [], [])
    assert "'Card' for 'card'" in found.answers["relevance"].why
    assert "spelt" not in found.answers["quality"].why
    plain = [example(row.line, row.text, f"the answer is {row.answer} {row.line}") for row in TRAIN]
    found = audited([*plain, example(900, "what is lost", '{"a": 1}')], [], [], kind="generation")
    assert "1 answer has another form than nearly all others (JSON)" in found.answers["relevance"].why


def test_size_says_what_twice_the_rows_would_do_and_what_the_test_can_show():
    why = audited(TRAIN, TEST, []).answers["size"].why
    assert "twice as many rows are expected to add" in why
    assert "can be told apart there from" in why


def test_without_vectors_nothing_is_made_up():
    found = audit(TRAIN, [], TEST, kind="classification")
    assert (found.answers["domain"].status, found.answers["relevance"].status) == ("not-measured", "not-measured")
    assert "word vectors" in found.answers["domain"].why


def test_answers_are_deterministic_and_private_texts_stay_private():
    strange = [example(line, f"planet orbit jo{line}@example.org comet", "", "t") for line in range(40)]
    first, second = (audited(TRAIN, [], [*TEST, *strange]).to_json() for _ in range(2))
    assert first == second
    assert "example.org" not in json.dumps(first)
