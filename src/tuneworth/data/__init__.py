"""Files become Examples: read, audit, clean, split."""

from tuneworth.data.audit import Audit, audit
from tuneworth.data.cleaning import Cleaned, Removal, clean
from tuneworth.data.example import Example, Message, content_id
from tuneworth.data.findings import Finding, Judgement, RowRef, Severity, Split
from tuneworth.data.normalising import NORMALISATION, input_key, normalise
from tuneworth.data.reading import Reading, read_examples
from tuneworth.data.shape import Kind, Shape
from tuneworth.data.splitting import Splits, split

__all__ = [
    "NORMALISATION",
    "Audit",
    "Cleaned",
    "Example",
    "Finding",
    "Judgement",
    "Kind",
    "Message",
    "Reading",
    "Removal",
    "RowRef",
    "Severity",
    "Shape",
    "Split",
    "Splits",
    "audit",
    "clean",
    "content_id",
    "input_key",
    "normalise",
    "read_examples",
    "split",
]
