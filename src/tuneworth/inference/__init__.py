"""The engine that continues token ids (cache, shared prefixes, batching) and Chat, which talks."""

from tuneworth.inference.batch import Constraint, Generation, Request
from tuneworth.inference.chat import Chat
from tuneworth.inference.engine import Engine
from tuneworth.inference.grammars import Grammars
from tuneworth.inference.sampling import Sampling

__all__ = ["Chat", "Constraint", "Engine", "Generation", "Grammars", "Request", "Sampling"]
