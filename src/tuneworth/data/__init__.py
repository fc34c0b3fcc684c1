"""Files become Examples: read, audit, clean, split."""

from tuneworth.data.audit import Audit, Judgement, Ruler, audit
from tuneworth.data.cleaning import Cleaned, Removal, clean
from tuneworth.data.example import Example, Message, ToolCall, content_id
from tuneworth.data.facts import answer_key
from tuneworth.data.findings import Finding, RowRef, Severity, Split
from tuneworth.data.normalising import NORMALISATION, input_key, normalise
from tuneworth.data.problems import CODES, RowProblem
from tuneworth.data.reading import Reading, collect, read_examples
from tuneworth.data.shape import Kind, RowShape, Shape
from tuneworth.data.splitting import Splits, split
from tuneworth.data.streaming import Batch, Job, Source, open_source

__all__ = [
    "CODES",
    "NORMALISATION",
    "Audit",
    "Batch",
    "Cleaned",
    "Example",
    "Finding",
    "Job",
    "Judgement",
    "Kind",
    "Message",
    "Reading",
    "Removal",
    "RowProblem",
    "RowRef",
    "RowShape",
    "Ruler",
    "Severity",
    "Shape",
    "Source",
    "Split",
    "Splits",
    "ToolCall",
    "answer_key",
    "audit",
    "clean",
    "collect",
    "content_id",
    "input_key",
    "normalise",
    "open_source",
    "read_examples",
    "split",
]
