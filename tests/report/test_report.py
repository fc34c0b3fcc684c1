"""The report: whole and closed, deaf to hostile data, patient with missing parts, and without a number of
its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields, replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from sample import sample

from tuneworth.report import ReportData, render_report
from tuneworth.report.charts import linear_axis, log_axis, short_count, short_usd

EVIL = (
    "</script></style><img src=x onerror=alert(1)>\"'`&{{7*7}}{% x %}https://evil.example/\u202e\x00\ud800" + "W" * 200
)
NAMES = {"a", "against", "arm", "b", "name"}  # which arm is meant: without one there is nothing to say of it
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """The tags, attributes and visible text of a page; fails where a tag is not closed in its place."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append("axis" if "axis" in (dict(attrs).get("class") or "").split() else tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() in (tag, "axis"), f"</{tag}> closes another tag"

    def handle_data(self, data: str) -> None:
        if not {"style", "svg", "axis"} & set(self.open):
            self.text.append(data)

    @property
    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


@pytest.fixture(scope="module")
def run() -> ReportData:
    return sample()


@pytest.fixture(scope="module")
def html(run: ReportData) -> str:
    return render_report(run)


def test_the_first_screen_says_what_to_do_how_sure_what_it_saves_and_what_would_change_it(html: str) -> None:
    head = Page(html.split("<main>")[0] + "</body></html>").words
    assert "Fine-tune: use lora-short" in head
    assert "lora-short against few-shot" in head and "points higher" in head
    assert "8.1 points ahead" in head and "lora-short is 8.1 points above tfidf-logistic" in head
    assert "it saves 3.99 USD against" in head and "and is cheaper from about 1,590 requests on" in head
    assert "Not prices and not volume" in head
    assert "What would change the answer" in head and "lora-full was skipped" in head


def test_the_page_is_well_formed_and_accessible(html: str) -> None:
    page = Page(html)
    assert html.startswith("<!doctype html>") and ("html", {"lang": "en"}) in page.tags
    assert sum(tag == "h1" for tag, _ in page.tags) == 1
    assert all(attrs.get("scope") in ("col", "row") for tag, attrs in page.tags if tag == "th")
    for svg in re.findall(r"<svg.*?</svg>", html, re.S):
        assert 'aria-hidden="true"' in svg or ("<title" in svg and "<desc" in svg and 'role="img"' in svg)
    ids = [attrs["id"] for _, attrs in page.tags if attrs.get("id")]
    assert len(ids) == len(set(ids))
    links = [str(attrs["href"]) for tag, attrs in page.tags if tag == "a"]
    assert links and all(link.removeprefix("#") in ids for link in links)


def test_the_page_fetches_nothing_and_runs_nothing(html: str) -> None:
    page = Page(html)
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert ("meta", {"http-equiv": "Content-Security-Policy", "content": policy}) in page.tags
    assert not {"script", "link", "img", "iframe", "object", "form", "base"} & {tag for tag, _ in page.tags}
    assert not any(name in ("src", "xlink:href", "action") for _, attrs in page.tags for name in attrs)
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert not re.search(r"https?://|url\(|@import", html)


def poisoned(value: Any, key: str = "") -> Any:
    """Every text and every key that is a name becomes hostile; words of the contract stay."""
    if isinstance(value, dict):
        return {k if k.isidentifier() else k + EVIL: poisoned(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [poisoned(item, key) for item in value]
    return value + EVIL if isinstance(value, str) and key not in ("status", "verdict", "family") else value


def test_hostile_texts_stay_texts(run: ReportData, html: str) -> None:
    hostile = ReportData(**{f.name: poisoned(getattr(run, f.name)) for f in fields(run)})
    poisoned_html = render_report(hostile)
    page = Page(poisoned_html)
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in Page(html).tags}
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert "</script></style><img src=x onerror=alert(1)>" in page.words and "{{7*7}}" in page.words
    assert "\u202e" not in poisoned_html and "\x00" not in poisoned_html
    poisoned_html.encode("utf-8")


def without(value: Any, key: str) -> Any:
    """A copy in which every value of `key` is null."""
    if isinstance(value, dict):
        return {k: None if k == key else without(v, key) for k, v in value.items()}
    return [without(item, key) for item in value] if isinstance(value, list) else value


def keys(value: Any) -> Iterator[str]:
    """All keys at any depth."""
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from keys(item)
    yield from value if isinstance(value, dict) else ()


def test_a_report_without_anything_says_so() -> None:
    page = Page(render_report(ReportData()))
    assert "No verdict yet" in page.words and "not measured" in page.words
    assert numbers(page.words) == {"1,000"}  # the heading "USD for 1,000 requests"
    Page(render_report(ReportData({}, {}, {}, {}, [])))


def test_any_missing_part_is_survived(run: ReportData) -> None:
    for name in ("task", "audit", "plan", "verdict"):
        assert "</html>" in render_report(replace(run, **{name: None}))
        Page(render_report(replace(run, **{name: None})))
    Page(render_report(replace(run, arms=())))
    documents = {f.name: getattr(run, f.name) for f in fields(run)}
    for key in sorted(set(keys(list(documents.values())))):
        Page(render_report(ReportData(**{name: without(value, key) for name, value in documents.items()})))


def test_what_is_null_reads_not_measured(run: ReportData) -> None:
    even = {**run.verdict, "break_even": None}  # type: ignore[dict-item]
    page = Page(render_report(replace(run, verdict=even)))
    assert "From when on not measured" in page.words
    assert "is cheaper from about" not in page.words.split("Why", 1)[0]
    page = Page(render_report(replace(run, verdict=without(run.verdict, "usd_per_1k_correct"))))
    assert "not measured" in page.words


@pytest.fixture(scope="module")
def full() -> ReportData:
    return sample(everything=True)


def test_what_was_measured_beyond_the_score_is_shown(full: ReportData) -> None:
    words = Page(render_report(full)).words
    for heading in ("Learning curve", "Altered requests", "Forgetting", "Requests that belong to none", "at once"):
        assert heading in words
    assert "-7.1 points" in words and "3.412 3.488" in words and "94.2 %" in words and "0.731" in words
    assert "Label about" in words.split("Why")[0] and "look number 2 at them" in words.split("Why")[0]


def test_what_was_not_measured_beyond_the_score_is_not_shown_as_nothing(run: ReportData, html: str) -> None:
    words = Page(html).words
    assert not re.search("Beyond the score|Altered requests|AUROC|Learning curve|look number", words)
    assert "Not measured in this run: what more training data would bring; scores on altered requests" in words


def test_any_part_beyond_the_score_may_be_missing(full: ReportData) -> None:
    for key in sorted(set(keys(full.verdict))):
        words = Page(render_report(replace(full, verdict=without(full.verdict, key)))).words
        assert key in NAMES or not re.search(r"\b(None|nan|Undefined)\b", words), key
        assert "Why" in words and "Limits" in words, key


def test_a_verdict_that_is_withheld_says_what_to_use_until_then() -> None:
    head = Page(render_report(sample(48)).split("<main>")[0] + "</body></html>").words
    assert "Not enough evidence to decide yet" in head and "Until then, use lora-short" in head
    assert "Not told apart" in head and "More test rows: about" in head


def test_a_family_of_which_nothing_was_measured_is_named_first(run: ReportData) -> None:
    arms = [dict(arm) for arm in run.verdict["arms"]]
    lost = next(arm for arm in arms if arm["family"] == "classical")
    lost["score"], lost["status"] = None, "failed"
    others = [arm for arm in run.arms if arm["name"] != lost["name"]]
    without = replace(run, verdict={**run.verdict, "arms": arms}, arms=others)
    head = Page(render_report(without).split("<main>")[0] + "</body></html>").words
    first = f"{lost['name']} failed; nothing of its family was measured"
    assert head.index(first) < head.index("lora-full was skipped; it could score better")


def numbers(text: str) -> set[str]:
    """Numbers in a text as they are written."""
    return set(re.findall(r"(?<![\w.])-?\d(?:[\d,]*\d)?(?:\.\d+)?", text))


def ways_to_write(value: Any) -> Iterator[str]:
    """Every way in which the report may write a number of its input, and the numbers inside of texts."""
    from tuneworth.decision import wording
    from tuneworth.report import rendering

    if isinstance(value, dict):
        for key, item in value.items():
            yield from ways_to_write(item)
            yield from numbers(key)
    elif isinstance(value, list):
        for item in value:
            yield from ways_to_write(item)
    elif isinstance(value, str):
        yield from numbers(value)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        for words in (wording.percent, wording.points, wording.usd, wording.count, wording.about):
            yield from numbers(words(value)) if value > 0 or words is not wording.about else ()
        for name in ("seconds", "size", "p_value", "plain", "tokens"):
            yield from numbers(rendering._FILTERS[name](value))
        yield from (f"{100 * value:.1f}",)


def test_every_number_shown_is_in_the_input(run: ReportData, html: str) -> None:
    shown = numbers(Page(html).words)
    given = {way for f in fields(run) for way in ways_to_write(getattr(run, f.name) or [])}
    ours = {"1,000", "0.0001"}  # "1,000 requests" and "p below 0.0001" are words of the page
    assert shown - given - ours == set()


def test_the_prompt_wins_report_reads_so(run: ReportData) -> None:
    verdict = {**run.verdict, "verdict": "prompt", "winner": "few-shot"}  # type: ignore[dict-item]
    page = Page(render_report(replace(run, verdict=verdict)))
    assert "Keep prompting: use few-shot" in page.words
    assert "lora-short against few-shot" in page.words  # the best arm's lead over the winner


@pytest.mark.parametrize("kind", ["more-data", "not-enough-evidence", "something new", None])
def test_verdicts_without_a_winner_are_shown(run: ReportData, kind: str | None) -> None:
    verdict = {**run.verdict, "verdict": kind, "winner": None}  # type: ignore[dict-item]
    page = Page(render_report(replace(run, verdict=verdict)))
    assert "use None" not in page.words and "winner" not in page.words.split("Why")[0]


def test_answers_of_all_arms_stand_side_by_side_where_they_are_known(run: ReportData) -> None:
    row = next(arm for arm in run.arms if arm["name"] == "lora-short")["worst"][0]
    answers = {row["id"]: {"tfidf-logistic": {"raw": "known only from the answers", "score": 0.0}}}
    assert "known only from the answers" in Page(render_report(replace(run, answers=answers))).words


def luminance(colour: str) -> float:
    channels = [int(colour[n : n + 2], 16) / 255 for n in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_all_text_has_contrast_aa_in_both_modes(html: str) -> None:
    style = html.split("<style>")[1].split("</style>")[0]
    light, dark = style.split("@media screen and (prefers-color-scheme: dark)")
    for mode in (light, dark.split("* { box-sizing")[0]):
        colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", mode))
        tints = re.findall(r"--tint: (#[0-9a-f]{6})", mode)
        for name in colours.keys() - {"page", "surface", "sunken", "line", "thin", "tint"}:
            on_tints = tints if name in ("text", "muted") else []
            for ground in (colours["page"], colours["surface"], *on_tints):
                light_end, dark_end = sorted((luminance(colours[name]), luminance(ground)), reverse=True)
                assert (light_end + 0.05) / (dark_end + 0.05) >= 4.5, (name, ground)


def test_axes_have_round_ticks_and_hold_all_values() -> None:
    axis = linear_axis([0.11, 0.9], lambda v: f"{v:g}", (0.0, 1.0))
    assert [words for _, words in axis.ticks] == ["0.2", "0.4", "0.6", "0.8"]
    assert 0 < axis.place(0.11) < axis.place(0.9) < 100
    assert linear_axis([], str, (0, 1)).ticks and linear_axis([0.5], str, (0, 1)).ticks
    decades = log_axis([0.004, 30], short_usd)
    assert (decades.low, decades.high) == pytest.approx((0.001, 100))
    assert decades.place(0.001) == 0 and decades.place(100) == 100
    assert len(log_axis([1e-9, 1e9], short_usd).ticks) <= 7
    assert (short_count(20_000), short_count(1e6), short_usd(0.01)) == ("20k", "1M", "0.01")


def test_the_page_opens_alone_from_a_file(html: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(html, encoding="utf-8")
    assert path.stat().st_size < 400_000
