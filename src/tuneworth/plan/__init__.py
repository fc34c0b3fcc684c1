"""Settings with reasons, and the budget allotted before anything starts. What is measured comes in as numbers."""

from tuneworth.plan.budget import (
    EVALUATIONS,
    Allotment,
    Course,
    Prompts,
    Rate,
    Rates,
    Rows,
    Trained,
    allot,
    looks_seconds,
)
from tuneworth.plan.halving import rounds, rows_asked
from tuneworth.plan.racing import Pace, Round, next_round, race_limit
from tuneworth.plan.searching import FACTOR, SEARCH_SHARE, SearchPlan, plan_search
from tuneworth.plan.settings import Setting, TrainingPlan, from_openai, training_plan
from tuneworth.plan.teaching import TEACHING, Teachers, with_teaching

__all__ = [
    "EVALUATIONS",
    "FACTOR",
    "SEARCH_SHARE",
    "TEACHING",
    "Allotment",
    "Course",
    "Pace",
    "Prompts",
    "Rate",
    "Rates",
    "Round",
    "Rows",
    "SearchPlan",
    "Setting",
    "Teachers",
    "Trained",
    "TrainingPlan",
    "allot",
    "from_openai",
    "looks_seconds",
    "next_round",
    "plan_search",
    "race_limit",
    "rounds",
    "rows_asked",
    "training_plan",
    "with_teaching",
]
