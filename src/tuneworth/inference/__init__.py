"""The engine that continues token ids (cache, shared prefixes, batching) and Chat, which talks."""

from tuneworth.inference.chat import Chat
from tuneworth.inference.engine import Engine, Generation

__all__ = ["Chat", "Engine", "Generation"]
