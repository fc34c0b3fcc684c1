"""Messages become token ids and loss mask: the only place that knows special tokens and chat templates."""

from tuneworth.rendering.renderer import Messages, Rendered, Renderer, Tools

__all__ = ["Messages", "Rendered", "Renderer", "Tools"]
