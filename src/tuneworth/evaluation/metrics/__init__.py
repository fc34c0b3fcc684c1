"""How a text becomes an answer and an answer a score: one main number a row in 0..1, and what each kind adds up.

`metric_of` is the entry: the metric of a kind of task, by its default or a name. Each kind has a module of its own.
"""

from tuneworth.evaluation.metrics.choosing import choose_metric, main_metric, metric_names
from tuneworth.evaluation.metrics.metric import Kit, Metric, MetricFailed, check_metric, score

__all__ = ["Kit", "Metric", "MetricFailed", "check_metric", "choose_metric", "main_metric", "metric_names", "score"]
