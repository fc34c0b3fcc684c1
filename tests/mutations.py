"""Put known bugs back, one at a time, and see that the test of their law goes red.

Run with `python tests/mutations.py [word ...]` (words pick mutations by name). Each bug is a change of text in a copy
of `src` in a temporary folder; the working tree stays as it is. Not part of the suite: it takes minutes.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Mutation:
    """`old` in `file` becomes `new`; the tests in `suite` whose names hold `law` must fail."""

    name: str
    file: str
    old: str
    new: str
    suite: str
    law: str


MUTATIONS = [
    Mutation(
        "rows of one group count as independent", "decision/statistics.py",
        "    if groups is not None:\n        order = np.argsort", "    if False:\n        order = np.argsort",
        "decision", "test_intervals_of_grouped_rows",
    ),
    Mutation(
        "Wilson alone where few rows are right", "decision/statistics.py",
        "few = np.minimum(right, np.asarray(rows) - right) < _FEW", "few = np.zeros_like(low, dtype=bool)",
        "decision", "test_the_interval_of_a_share_covers",
    ),
    Mutation(
        "pairs are not corrected for the best being chosen", "decision/statistics.py",
        "    if arms <= 2:\n        return alpha\n", "    return alpha\n",
        "decision", "test_intervals_of_all_pairs_hold_together",
    ),
    Mutation(
        "a dearer arm that may be better holds up nothing", "decision/rule.py",
        "return lead >= decision.minimum_effect and not pair.equivalent", "return False",
        "decision", "test_a_dearer_arm_that_may_be_better",
    ),
    Mutation(
        "a score on cut-off answers decides (law 51)", "decision/rule.py",
        "if doubtful or artefacts:", "if doubtful:", "decision", "test_law_51",
    ),
    Mutation(
        "looking again costs nothing", "decision/looks.py",
        "/ (looks * (looks - 1))", "", "decision", "test_looking_again",
    ),
    Mutation(
        "other answers on the same test rows are no look", "store/looks.py",
        "seen.append(answers)", "return 1", "store", "test_other_answers",
    ),
    Mutation(
        "the spread of seeds is left out", "decision/statistics.py",
        "variance = rows + seeds.deviation**2", "variance = rows", "decision", "test_the_spread_of_seeds",
    ),
    Mutation(
        "right answers cost what requests cost", "decision/costs.py",
        "return other_usd / against.mean - usd / arm.mean", "return other_usd - usd",
        "decision", "test_right_answers_instead",
    ),
    Mutation(
        "labels are paid by every task that shares them", "decision/records.py",
        "share = decision.usd_for_labels / decision.labels_shared_by", "share = decision.usd_for_labels",
        "decision", "test_what_costs_beside",
    ),
    Mutation(
        "loss is a mean per micro-batch (law 1)", "training/loop.py",
        "(value / count).backward()", "(value / part.count / len(packs)).backward()",
        "training", "test_law_1_and_3_gradients",
    ),
    Mutation(
        "a step divides by all rows' tokens, not its own (law 3)", "training/loop.py",
        "count = sum(part.count for part in packs)",
        "count = sum(part.count for part in packs) * settings.batch_size / len(rows)",
        "training", "test_law_3_a_last_partial",
    ),
    Mutation(
        "all parameters learn at one rate (law 4)", "training/loop.py",
        'group["lr"] = rate * group["share"]', 'group["lr"] = rate', "training", "test_law_4_a_share",
    ),
    Mutation(
        "the loop is not told the plan's ratio", "pipeline/settling.py",
        'values.get("lora_b_ratio", 1.0)', "1.0", "pipeline/test_settling.py", "factors_learn",
    ),
    Mutation(
        "a plan of before goes on with today's ratio (law 48)", "pipeline/settling.py",
        'values.get("lora_b_ratio", 1.0)', 'values.get("lora_b_ratio", 8.0)', "pipeline/test_settling.py", "law_48",
    ),
    Mutation(
        "gradients leak into the next step (law 3)", "training/loop.py",
        "        self._adam.step()\n        self.drop_gradients()\n", "        self._adam.step()\n",
        "training", "test_law_3_a_last_partial",
    ),
    Mutation(
        "learning rate decays once per micro-batch too many (law 4)", "training/schedule.py",
        "left = (settings.steps - step)", "left = (settings.steps - step - 1)", "training", "test_law_4",
    ),
    Mutation(
        "labels are shifted twice (law 5)", "training/batches.py",
        "source.append(start + index - 1)", "source.append(max(start, start + index - 2))",
        "training", "test_law_5",
    ),
    Mutation(
        "labels are not shifted (law 5)", "training/batches.py",
        "source.append(start + index - 1)", "source.append(start + index)", "training", "test_law_5",
    ),
    Mutation(
        "the end token is not trained (laws 1, 6)", "rendering/renderer.py",
        "(True,) * trained)", "(True,) * (trained - 1) + (False,))", "rendering", "test_law_1_and_6",
    ),
    Mutation(
        "tokens equal to the end are masked by id (law 7)", "training/batches.py",
        "and row.trained[index]:", "and row.trained[index] and row.ids[index] != 299:", "training", "test_law_7",
    ),
    Mutation(
        "rows without a trained token pass (law 12)", "training/loop.py",
        "if empty or not rows:", "if not rows:", "training", "test_law_12",
    ),
    Mutation(
        "a step is taken on a loss that is no number (law 14)", "training/loop.py",
        "if not (math.isfinite(total) and math.isfinite(norm)):", "if False:", "training", "test_law_14",
    ),
    Mutation(
        "gradients are not checked, the loss alone is (law 14)", "training/loop.py",
        "if not (math.isfinite(total) and math.isfinite(norm)):", "if not math.isfinite(total):",
        "training", "test_law_14",
    ),
    Mutation(
        "validation loss is a mean of batch means (law 15)", "training/loss.py",
        "loss += answer_loss(model, packed).item()\n        trained += len(packed.target)",
        "loss += answer_loss(model, packed).item() / len(packed.target)\n        trained += 1",
        "training", "test_law_15",
    ),
    Mutation(
        "the prefix is shared one token too far (law 3)", "training/batches.py",
        "row.trained.index(True, 1) - 1 if", "row.trained.index(True, 1) if",
        "models", "test_a_shared_prefix_leaves",
    ),
    Mutation(
        "packed rows see their neighbours (law 30)", "models/rows.py",
        "own = (k, v)\n", "own = (k.roll(band.longest, 1), v.roll(band.longest, 1))\n", "models", "test_law_30",
    ),
    Mutation(
        "positions go on instead of starting again (law 30)", "training/batches.py",
        "[*range(part.start, part.stop),",
        "[*range(len(positions), len(positions) + part.stop - part.start),",
        "models", "test_law_3_and_30",
    ),
    Mutation(
        "what pairs are held to is read outside the plan", "plan/budget.py",
        "read = rows.train + rows.validation if self.read_first else 0", "read = 0",
        "plan", "test_what_pairs_are_held_to",
    ),
    Mutation(
        "a training on pairs is planned as one on answers", "pipeline/measuring.py",
        "read_first=bench.read_first", "read_first=False",
        "kinds", "test_a_kind_runs_from_file_to_report",
    ),
    Mutation(
        "the budget that would do for a training is guessed", "plan/budget.py",
        "for budget in longer if arm in at(budget).trainings", "for budget in longer",
        "plan", "test_the_budget_that_is_said",
    ),
    Mutation(
        "fillers stand before the row's own tokens (law 3)", "training/batches.py",
        "start = len(ids) - part.start  #", "start = len(ids) + filler - part.start  #",
        "training", "test_law_3_and_30",
    ),
    Mutation(
        "packs are filled up to one token too few", "training/batches.py",
        "% filled_to\n", "% filled_to - 1\n", "training", "test_law_3_and_30",
    ),
    Mutation(
        "long rows are never set apart", "models/rows.py",
        "    if not best or scores(count", "    if True or scores(count",
        "training", "test_few_long_rows",
    ),
    Mutation(
        "the gate's gradient leaves out its own slope", "models/kernels.py",
        "share * (1 + x * (1 - share))", "share", "models", "test_a_compiled_kernel",
    ),
    Mutation(
        "the window does not count the prefix (law 34)", "models/attention.py",
        "if window is not None:\n        common", "if False:\n        common", "inference", "test_law_6",
    ),
    Mutation(
        "the window is one token too wide (law 34)", "models/attention.py",
        "(distance >= window)", "(distance > window)", "inference", "test_law_6",
    ),
    Mutation(
        "the cache is read one slot short (law 34)", "inference/cache.py",
        "offsets=self._starts,", "offsets=self._starts - 1 * bool(self._starts.any()),", "inference", "test_law_6",
    ),
    Mutation(
        "positions of new tokens forget the prefix (law 32)", "inference/cache.py",
        "return [self.prefix.tokens + place for place in places]", "return places",
        "inference", "test_law_6_32",
    ),
    Mutation(
        "a row that leaves takes the last row's place in the cache alone (law 6)", "inference/batch.py",
        "        self._rows[place] = self._rows[last]\n        self._rows.pop()\n", "        self._rows.pop(place)\n",
        "inference", "test_law_6_rows_end",
    ),
    Mutation(
        "reading is timed with rows that the engine has read", "evaluation/local.py",
        "rows = examples[asked : count if whole else 2 * count] or few", "rows = examples[:count]",
        "evaluation/test_forecasts.py", "timed",
    ),
    Mutation(
        "a prompting arm is not told its time", "pipeline/running.py",
        "forms, _planned(plan, arm.name), most)", "forms)", "pipeline/test_budget_kept.py", "told_its_time",
    ),
    Mutation(
        "rows that are timed are of one conversation", "pipeline/measuring.py",
        "sorted(range(len(turns)), key=turns.__getitem__)", "range(len(turns))",
        "pipeline/test_budget_kept.py", "one_conversation",
    ),
    Mutation(
        "what pairs take before the first step is not counted", "evaluation/fitting.py",
        "fit.settings.maximum_seconds - (time.perf_counter() - began)", "fit.settings.maximum_seconds",
        "evaluation/test_forecasts.py", "pairs_take",
    ),
    Mutation(
        "choosing among prompts goes on however long it takes", "evaluation/choosing.py",
        "if asked > _FIRST and began", "if False and began",
        "evaluation/test_choosing.py", "budget",
    ),
    Mutation(
        "a prompt that is far slower than planned takes the time of a training", "evaluation/prompted.py",
        "if needed <= most:", "if True:",
        "evaluation/test_choosing.py", "left_out",
    ),
    Mutation(
        "a prompt is left out for what its first rows pay for all", "evaluation/choosing.py",
        "a_row if asked > _FIRST else 0.0", "a_row",
        "evaluation/test_choosing.py", "where_few_rows_choose",
    ),
    Mutation(
        "a second training begins for a tenth of its epochs", "plan/budget.py",
        "math.ceil(_FURTHER_SHARE * self.steps(rows))", "0",
        "plan/test_plan.py", "of_a_second_training",
    ),
    Mutation(
        "a first training that is slow leaves its time to the second", "pipeline/running.py",
        "if name != first or stage not in further", "if True",
        "pipeline/test_budget_kept.py", "beside_what_is_still_to_come",
    ),
    Mutation(
        "a slow prompt is not told what is left for it", "pipeline/running.py",
        "forms, _planned(plan, arm.name), most)", "forms, _planned(plan, arm.name))",
        "pipeline/test_budget_kept.py", "told_its_time",
    ),
    Mutation(
        "a kernel that holds for some lengths only is used for all", "models/compiling.py",
        "if not environment.evaluate_guards_expression(code, others):", "if False:",
        "models/test_compiling.py", "some_lengths_only",
    ),
    Mutation(
        "kernels are refused for what makes sums over 4,096 values precise", "models/compiling.py",
        '"S": 4096, "R": 9002, "P": 4095}', '"S": 4096, "R": 9002, "P": 9000}',
        "models/test_compiling.py", "every_kernel",
    ),
    Mutation(
        "one kernel that is refused stops all", "models/kernels.py",
        "except LengthsError as error:", "except ZeroDivisionError as error:",
        "models/test_compiling.py", "some_lengths_only_runs",
    ),
    Mutation(
        "queries have the keys' norm and keys the queries' (law 3)", "models/kernels.py",
        "[query.expand(queries, -1), key.expand(kv_heads, -1)]",
        "[key.expand(queries, -1), query.expand(kv_heads, -1)]",
        "models/test_blocks_laws.py", "test_law_3",
    ),
    Mutation(
        "the gradient of gelu leaves out its second part (law 3)", "models/kernels.py",
        "0.5 * (1 + bent) + 0.5 * x * (1 - bent * bent)", "0.5 * (1 + bent) + 0 * x * (1 - bent * bent)",
        "models/test_blocks_laws.py", "test_a_compiled_kernel",
    ),
    Mutation(
        "the gradient goes past the norm behind attention and MLP (law 3)", "models/blocks.py",
        "return gradient if projected is None or norm is None else", "return gradient if True else",
        "models/test_blocks_laws.py", "test_law_3",
    ),
    Mutation(
        "a weight of Gemma's norms is not one more (law 3)", "models/structure.py",
        "return 1 + weight.to(precise(weight))", "return weight.to(precise(weight))",
        "models/test_blocks_laws.py", "test_law_3",
    ),
    Mutation(
        "Gemma's norms are rounded before their weight", "models/kernels.py",
        "(scaled.to(x.dtype) if weight.dtype == x.dtype else scaled)", "scaled.to(x.dtype)",
        "models/test_structure.py", "rounded_where",
    ),
    Mutation(
        "a lone token is computed past its window (law 6)", "models/packed.py",
        "if slots and slots[0].used.shape[0] <= self._window:", "if slots:",
        "models/test_single_laws.py", "test_law_37",
    ),
    Mutation(
        "the gradient goes past the norms of heads (law 3)", "models/kernels.py",
        "torch.cat([own.to(wide.dtype), found", "torch.cat([found[:, :-kv_heads], found",
        "models/test_blocks_laws.py", "test_law_3",
    ),
    Mutation(
        "a lone token's heads are not normalised (law 6)", "models/single.py",
        "queries, own = normed(queries, norm_query, epsilon), normed(own, norm_key, epsilon)", "pass",
        "models/test_single_laws.py", "test_law_6",
    ),
    Mutation(
        "answers are computed without the norms of heads (law 6)", "models/packed.py",
        "wide = norm_heads(wide, *own.heads).flatten(1)", "pass",
        "inference/test_prefix_laws.py", "test_law",
    ),
    Mutation(
        "a kernel for one type is used for another", "models/compiling.py",
        "return x.dtype, *[shape[d]", "return 0, *[shape[d]", "models/test_compiling.py", "constants",
    ),
    Mutation(
        "what was compiled is looked up without its constants", "models/compiling.py",
        "facts = key, torch.get_num_threads()", "facts = torch.get_num_threads()",
        "models/test_compiling.py", "constants",
    ),
    Mutation(
        "a kernel is compiled for the length that it meets first", "models/compiling.py",
        "kinds[d] = DimDynamic.DUCK", "pass",
        "models/test_blocks_laws.py", "compiled_once",
    ),
    Mutation(
        "a choice that begins another is never left for the longer one", "inference/choosing.py",
        "                    node.only = None\n", "                    pass\n", "inference", "test_law_6",
    ),
    Mutation(
        "choices are looked up in the order of the tree's tokens", "inference/choosing.py",
        "[place[token] for token in node.children]", "sorted(place[token] for token in node.children)[::-1]",
        "inference", "exhaustive",
    ),
    Mutation(
        "a branch sees its siblings", "inference/cache.py",
        "seen[row, place, list(branch.slots)] = True", "seen[row, place, : max(branch.slots) + 1] = True",
        "inference", "exhaustive",
    ),
    Mutation(
        "the search stops at the first whole choice", "inference/scoring.py",
        "self.open[-1][0] > least", "least == -math.inf", "inference", "exhaustive",
    ),
    Mutation(
        "kept beginnings outlive a change of weights", "inference/engine.py",
        "        if self._decoder.refresh():\n            self._prefixes.clear()\n        # A lone answer",
        "        self._decoder.refresh()\n        # A lone answer",
        "inference", "test_kept_beginnings_go",
    ),
    Mutation(
        "one adapter's beginnings serve another", "inference/prefixes.py",
        "node, place, now = self._roots.get(owner), 0,",
        "node, place, now = next(iter(self._roots.values()), None), 0,",
        "inference", "test_what_one_adapter",
    ),
    Mutation(
        "what is kept is not counted", "inference/prefixes.py",
        "            self.size_bytes += rest.size_bytes\n", "            pass\n", "inference", "test_the_tree",
    ),
    Mutation(
        "all rows draw from one chance (law 35)", "inference/sampling.py",
        "generator=self._chance", "generator=None", "inference", "test_the_same_seed",
    ),
    Mutation(
        "what may begin a stop string is let out", "inference/text.py",
        "text[: len(text) - self._held_back(text)]", "text", "inference", "test_a_stop_string",
    ),
    Mutation(
        "streaming decodes token by token (law 37)", "inference/text.py",
        " or text.endswith(_REPLACEMENT)", "", "inference", "test_law_37",
    ),
    Mutation(
        "an adapter loads with keys that do not fit (law 42)", "models/adapters.py",
        "if missing or report.unexpected_keys:", "if False:", "models", "test_law_42",
    ),
    Mutation(
        "all weights: the head is saved as tied when it is not (law 38)", "models/weights.py",
        "head is not None and head.weight is embedding.weight", "True", "models", "test_law_38",
    ),
    Mutation(
        "a tensor that is missing keeps the base's value (law 42)", "models/weights.py",
        "    if wrong:\n", "    saved = dict(model.state_dict()) | saved\n    if False:\n",
        "models", "test_law_42_full",
    ),
    Mutation(
        "all weights: the base stays as trained", "models/tuning.py",
        "        put_back(self.model, self.before)\n", "", "models", "test_a_fresh_start",
    ),
    Mutation(
        "an adapter that is continued is frozen (law 43)", "models/adapters.py",
        "autocast_adapter_dtype=False, is_trainable=to_train)", "autocast_adapter_dtype=False, is_trainable=False)",
        "models", "test_a_training_goes_on",
    ),
    Mutation(
        "recomputed blocks see no gradient (law 43)", "models/recompute.py",
        "return checkpoint(plain,", "with torch.no_grad():\n            return checkpoint(plain,",
        "models", "test_law_43_recomputed",
    ),
    Mutation(
        "blocks stay recomputed for ever", "models/recompute.py",
        "            del block.forward\n", "            pass\n", "models", "test_law_43_each_block",
    ),
    Mutation(
        "no float32 masters (law 44)", "training/loop.py",
        "p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True)", "p.detach().clone()",
        "training", "test_law_44",
    ),
    Mutation(
        "the last weights are kept, not the best (law 47)", "training/loop.py",
        "    masters.load_best()\n", "", "training", "test_law_47",
    ),
    Mutation(
        "resumed without Adam's moments (law 48)", "training/loop.py",
        '"exp_avg": _fitting(saved.tensors, f"first/{name}", master).clone()', '"exp_avg": torch.zeros_like(master)',
        "training", "test_law_48_resumed_equals",
    ),
    Mutation(
        "resumed with Adam's step count at 0 (law 48)", "training/loop.py",
        '"step": torch.tensor(float(saved.step))', '"step": torch.tensor(0.0)',
        "training", "test_law_48_resumed_equals",
    ),
    Mutation(
        "a resumed run starts its data again (law 48)", "training/loop.py",
        "[rows[i] for i in plan(step)]", "[rows[i] for i in plan(step - resume.step if resume else step)]",
        "training", "test_law_48_resumed_equals",
    ),
    Mutation(
        "pairs are divided by their tokens, not their number (law 2)", "training/preference.py",
        "return len(self.reference)", "return len(self.target)", "training", "test_law_2_and_3_gradients",
    ),
    Mutation(
        "the loss of pairs is a mean (law 2)", "training/preference.py",
        "-logsigmoid(beta * margins(model, packed)).sum()", "-logsigmoid(beta * margins(model, packed)).mean()",
        "training", "test_law_2",
    ),
    Mutation(
        "log-probabilities of pairs are means over tokens (law 19)", "training/preference.py",
        ".index_add(0, packed.owner, of_tokens)",
        ".index_add(0, packed.owner, of_tokens) / packed.owner.bincount()", "training", "test_law_19",
    ),
    Mutation(
        "two prompts in one pair pass (law 21)", "training/preference.py",
        "if prompts[0] != prompts[1]:", "if False:", "training", "test_law_21_two",
    ),
    Mutation(
        "dropout is on in training (law 22)", "training/loop.py",
        "    model.eval()\n", "    model.train()\n", "training", "test_law_22",
    ),
    Mutation(
        "dropout is on while the reference is asked (law 22)", "training/preference.py",
        "    model.eval()\n    plain", "    plain", "training", "test_law_22",
    ),
    Mutation(
        "the reference is forgotten (law 22)", "training/preference.py",
        "return chosen - rejected - packed.reference.to(chosen.dtype)", "return chosen - rejected",
        "training", "test_law_22",
    ),
    Mutation(
        "an alarm is never raised (law 29)", "training/alarms.py",
        "if loss < _TOO_LOW and", "if False and", "training", "test_law_29",
    ),
    Mutation(
        "a target is counted for the row before it (law 31)", "training/batches.py",
        "owner.append(part.rows[0])", "owner.append(max(0, part.rows[0] - 1))", "training", "test_law_31",
    ),
    Mutation(
        "the first token of a row is predicted by the row before (law 31)", "training/batches.py",
        "range(max(part.start, 1), part.stop + 1)", "range(part.start, part.stop + 1)", "models", "test_law_31",
    ),
    Mutation(
        "gradients of a pass that ran out of memory count (law 3)", "training/loop.py",
        "            self._parameters[name].grad = None\n", "", "training", "test_f7",
    ),
    Mutation(
        "the budget begins when libraries are loaded", "cli.py",
        "out=out, until=stage, watcher=watcher, allow_code=allow_code, clock=clock",
        "out=out, until=stage, watcher=watcher, allow_code=allow_code", "pipeline",
        "test_the_budget_counts_from_the_command",
    ),
    Mutation(
        "a written answer is planned as if it were one token (budget)", "evaluation/local.py",
        "(max(1.0, written) - 1) * a_token", "0 * a_token", "evaluation", "test_a_written_answer",
    ),
    Mutation(
        "slow requests are asked alone as often as quick ones (budget)", "evaluation/local.py",
        "if sum(seconds) > _LATENCY_SECONDS and", "if False and", "evaluation", "test_requests_asked_alone",
    ),
    Mutation(
        "timing a training teaches the model", "evaluation/forecast.py",
        "Settings(2 * steps, batch_size, 0.0,", "Settings(2 * steps, batch_size, 1.0,", "evaluation",
        "test_what_a_training_is_timed_by",
    ),
    Mutation(
        "a training that patience ended is blamed on the budget", "pipeline/deciding.py",
        'or settings.get("ended") == "patience"', "", "pipeline", "test_epochs_count",
    ),
    Mutation(
        "a large set is left out when half of it does not fit (budget)", "plan/budget.py",
        "min(least, _WORTHWHILE_STEPS)", "least", "plan", "test_a_large_set",
    ),
    Mutation(
        "what answers really take is not looked at (budget)", "training/pace.py",
        "self._settings.seconds_after - seconds", "self._settings.seconds_after * 0",
        "training", "test_a_training_gives_up",
    ),
    Mutation(
        "a training with one look never settles its length (budget)", "training/loop.py",
        "one_look and step == settings.steps // 2", "one_look and step == -1", "training", "one_look",
    ),
    Mutation(
        "answers are timed half way through a training whose length is fixed (budget)", "training/loop.py",
        "return bounded and one_look", "return one_look", "training", "length_is_fixed",
    ),
    Mutation(
        "a length that was settled half way is not saved where a training diverges (law 48)", "training/loop.py",
        "            state = replace(state, length=_length(settings))\n", "", "training", "settled_half_way_is_saved",
    ),
    Mutation(
        "what is measured half way through a training with one look is not used (budget)", "training/pace.py",
        "        self._expected = seconds", "        del seconds", "training", "one_look",
    ),
    Mutation(
        "answers half way through a training with one look are not timed (budget)", "evaluation/fitting.py",
        "None if fit.scoring.chooses else expect", "None", "evaluation/test_forecasts.py", "half_way",
    ),
    Mutation(
        "a length that the clock settled is forgotten on resume (law 48)", "training/loop.py",
        "if length is None:", "if True:", "training", "test_law_48",
    ),
    Mutation(
        "a training that the clock ended goes on when it is resumed (law 48)", "training/loop.py",
        "step >= settings.steps or state.out_of_time or", "step >= settings.steps or", "training", "test_law_48",
    ),
    Mutation(
        "the look after the last step is not counted (budget)", "training/pace.py",
        "return seconds + self.a_step + self._a_look >", "return seconds >", "training", "test_time_is_up",
    ),
    Mutation(
        "patience starts again on resume (law 48)", "training/loop.py",
        "unimproved=0 if score > state.best_score else more", "unimproved=0",
        "training", "test_patience",
    ),
    Mutation(
        "not a number: the last good state is not kept (law 14)", "training/loop.py",
        "if step > state.step:", "if False:", "training", "test_law_14_the_rows",
    ),
    Mutation(
        "validation loss counts the neighbours' tokens (law 16)", "training/loss.py",
        "trained += len(packed.target)", "trained += packed.ids.shape[1]", "training", "test_law_15",
    ),
    Mutation(
        "rows longer than the context are trained (laws 8, 13)", "evaluation/local.py",
        "if max(len(each.ids) for each in rendered) > self.folder.context_tokens:", "if False:",
        "training", "test_law_8_and_13",
    ),
    Mutation(
        "pairs longer than the context are trained (law 19)", "evaluation/local.py",
        "if max(len(row.ids) for row in rows) > self.folder.context_tokens:", "if False:",
        "training", "test_law_19_a_pair",
    ),
    Mutation(
        "an answer is found by its text (law 10)", "rendering/renderer.py",
        "(False,) * len(prompt_ids) + (True,) * trained)",
        "(s := next(i for i in range(len(ids)) if ids[i : i + trained] == ids[len(ids) - trained :])) * (False,)"
        " + (True,) * trained + (False,) * (len(ids) - s - trained))", "rendering", "test_law_9_10_and_11",
    ),
    Mutation(
        "the last answer's end is cut off (law 9)", "rendering/renderer.py",
        "{tail[: end.end()]}", "{tail[: end.start()]}", "rendering", "test_law_9_10_and_11",
    ),
    Mutation(
        "the trained prompt has no opening of the answer (law 17)", "rendering/renderer.py",
        "before = self.template.render(hidden[:-1], generate=True, tools=told)",
        "before = self.template.render(hidden[:-1], generate=False, tools=told)", "rendering", "test_law_17",
    ),
    Mutation(
        "tokens of the prompt are trained (law 16)", "training/batches.py",
        "if index < len(row.ids) and row.trained[index]:", "if index < len(row.ids):", "training", "test_law_16",
    ),
    Mutation(
        "a token of one pair counts for its neighbour (law 20)", "training/preference.py",
        "index_add(0, packed.owner, of_tokens)", "index_add(0, packed.owner.roll(1), of_tokens)",
        "training", "test_law_19_and_20",
    ),
    Mutation(
        "the cosine rises (law 4)", "training/schedule.py",
        "(1 - math.cos(math.pi * left)) / 2", "(1 + math.cos(math.pi * left)) / 2", "training", "test_law_4_the_cosine",
    ),
    Mutation(
        "a loss spike is not told", "training/alarms.py",
        "if loss > max(", "if False and loss > max(", "training", "test_f14",
    ),
    Mutation(
        "out of memory fails at once", "training/loop.py",
        "if not is_out_of_memory(error):", "if True:", "training", "test_f7",
    ),
    Mutation(
        "every epoch has the same order (law 49)", "training/batches.py",
        'random.Random(f"{seed}/{epoch}")', 'random.Random(f"{seed}")', "training", "test_law_49",
    ),
    Mutation(
        "a merge across the border changes the prompt (law 2)", "rendering/renderer.py",
        "if ids[: len(prompt_ids)] != prompt_ids:", "if False:", "rendering", "test_law_2",
    ),
    Mutation(
        "a template writes today's date (law 2)", "rendering/template.py",
        "= _DAY.strftime", "= lambda form: datetime.now().strftime(form)",
        "rendering", "test_law_2_a_template_that_writes_the_date",
    ),
    Mutation(
        "control strings of a text become control tokens (law 26)", "rendering/renderer.py",
        "if not any(self._structure.search(text) for text in texts):", "if True:",
        "rendering", "test_law_26",
    ),
    Mutation(
        "what the answer holds changes the prompt (law 2)", "rendering/renderer.py",
        "prompt_ids = self.prompt(messages[:-1], tools) if unhide else self._encode(before, {})",
        "prompt_ids = self._encode(before, unhide)", "rendering", "test_law_2",
    ),
    Mutation(
        "the tokenizer adds its BOS to the template's (law 23)", "rendering/renderer.py",
        "self._tokenizer.encode(text, add_special_tokens=False)", "self._tokenizer.encode(text)",
        "rendering", "test_law_23",
    ),
    Mutation(
        "templates run outside the sandbox", "rendering/template.py",
        "environment = ImmutableSandboxedEnvironment(", "environment = jinja2.Environment(",
        "rendering", "test_a_hostile",
    ),
    Mutation(
        "files are written in place (law 9)", "store/atomic.py",
        "            Path(name).replace(path)\n",
        "            path.write_bytes(content)\n            Path(name).unlink()\n",
        "store", "test_law_9",
    ),
    Mutation(
        "the cache is built without a lock (law 9)", "store/cache.py",
        "            fcntl.flock(lock, fcntl.LOCK_EX)\n", "", "store", "test_law_9_two_processes",
    ),
    Mutation(
        "the download's hash is not looked at", "store/index.py",
        "if found != sha256:", "if False:", "models", "test_other_bytes",
    ),
    Mutation(
        "a training row is its own neighbour in coverage", "data/coverage.py",
        "like[np.arange(len(like)), start + np.arange(len(like))] = -1", "pass",
        "data", "test_a_row_is_not_its_own_neighbour or test_requests_like",
    ),
    Mutation(
        "requests that are far by chance count as not covered", "data/coverage.py",
        "(value - FAR_OF_OWN) / (1 - FAR_OF_OWN)", "value", "data", "test_requests_like_the_training_rows_are_as_often",
    ),
    Mutation(
        "private requests are shown as examples", "data/coverage.py",
        "if line and not _LINK_OR_NUMBER.search(line) and not any(private_kinds(line)):", "if line:",
        "data", "test_private_texts_are_never_shown",
    ),
    Mutation(
        "a wrong label alone makes a row off-topic", "data/relevance.py",
        "self.doubt[rows] - np.median(self.doubt) - np.log(further)", "2 * (self.doubt[rows] - np.median(self.doubt))",
        "data", "test_planted_rows or test_a_wrong_label",
    ),
    Mutation(
        "a rare topic alone makes a row off-topic", "data/relevance.py",
        "self.doubt[rows] - np.median(self.doubt) - np.log(further)", "-2 * np.log(further)",
        "data", "test_rare_rows",
    ),
    Mutation(
        "words are weighted by how often they are missing", "data/words.py",
        "(1 + texts_with[kept])", "(1 + len(texts) - texts_with[kept])", "data", "test_words_and_weights",
    ),
    Mutation(
        "the curve learns from the rows that it is asked for", "data/plain.py",
        "features.counts[learnt], known, classes", "features.counts[asked], labels[asked], classes",
        "data", "never_looks_at_the_labels",
    ),
    Mutation(
        "rows of a file that becomes shorter are lost silently (law 9)", "data/streaming.py",
        "if len(data) < self.end - self.start:", "if False:", "data", "becomes_shorter",
    ),
    Mutation(
        "labels that texts do not tell are doubted", "data/labels.py",
        " & labels_follow(scores, labels)", "", "data", "do_not_follow_from_texts",
    ),
    Mutation(
        "pairs of one question contradict one another", "data/checks.py",
        "if len(by_better) > 1]", "if by_better]", "data", "several_pairs_of_one_question",
    ),
    Mutation(
        "the forecast of a sample starts at the sample", "data/size.py",
        "np.array(sizes), scores, tested, rows)", "np.array(sizes), scores, tested, len(labels))",
        "data", "test_the_forecast_of_a_sample",
    ),
    Mutation(
        "numbers in labels are taken for typos", "data/relevance.py",
        'if re.findall(r"\\d+", form) != re.findall(r"\\d+", usual) or', "if", "data", "test_labels_of_their_own",
    ),
    Mutation(
        "a damaged pack is given out (law 9)", "store/packs.py",
        "if hashlib.sha256(content).hexdigest() != pack:", "if False:", "store", "test_law_9_one_flipped",
    ),
    Mutation(
        "a record's check sum is not looked at (law 9)", "store/registry.py",
        'content.pop("sha256", None) == _check_sum(content)', 'bool(content.pop("sha256", None))',
        "store", "test_law_9_one_flipped",
    ),
    Mutation(
        "writers of the registry do not take turns (law 9)", "store/registry.py",
        "fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\n", "pass\n", "store", "test_law_9_writers",
    ),
    Mutation(
        "what a killed writer left behind stays (law 9)", "store/registry.py",
        "            self._sweep()\n            yield\n", "            yield\n", "store", "test_law_9_killed",
    ),
    Mutation(
        "a unit that is tied to a test row leaves test", "data/splitting.py",
        "is_test = bool(merged & tested)", "is_test = unit in tested", "data", "stays_in_test",
    ),
    Mutation(
        "the share in test is not kept within bounds", "data/units.py",
        "if tested + 1 - self.share * rows > room:", "if False:", "data", "test_every_class_has_its_share",
    ),
    Mutation(
        "repeats are judged by one task's answer", "pipeline/cleaning.py",
        "return wanted(example), orjson.dumps(others)", "return wanted(example)",
        "pipeline", "test_a_row_that_differs",
    ),
    Mutation(
        "ties lose their repeats, so that cleaning again decides them", "data/cleaning.py",
        "votes = undecided if asked else frozenset[str]()", "votes = frozenset[str]()",
        "pipeline", "test_a_tie_under_majority",
    ),
    Mutation(
        "a run means another version when the set goes on", "pipeline/running.py",
        "    task = pinned(task)\n", "", "pipeline", "test_a_run_keeps_its_version",
    ),
    Mutation(
        "reading: escaped colons hide duplicate keys", "data/jsonrows.py",
        ' or b"\\\\u003" in raw', "", "data", "test_each_malformed_row",
    ),
    Mutation(
        "reading: the last of duplicate keys wins", "data/jsonrows.py",
        "if raw.count(b\":\") != orjson.dumps(value).count(b\":\")", "if False", "data", "test_each_malformed_row",
    ),
    Mutation(
        "reading: control characters in escapes are not looked for", "data/jsonrows.py",
        "elif not _is_suspect(raw) or check_characters(value, number, tally):", "else:", "data", "test_each_malformed",
    ),
    Mutation(
        "reading: lines of later pieces are counted from one", "data/streaming.py",
        "                    line += block.count(b\"\\n\")\n", "", "data", "problems_of_later",
    ),
    Mutation(
        "reading: a table is cut at any line feed", "data/streaming.py",
        "if dialect is None or dialect.lines_are_records:", "if True:", "data", "cut_between_records",
    ),
    Mutation(
        "reading: a long line is read whole", "data/streaming.py",
        "if first - start > LONGEST_ROW + size:", "if False:", "data", "d14",
    ),
    Mutation(
        "reading: a compressed file may unpack to anything", "data/unpacking.py",
        "if written > allowed:", "if False:", "data", "bomb",
    ),
    Mutation(
        "reading: Zstandard is unpacked in one go", "data/unpacking.py",
        "raw.read(1 << 10)", "raw.read(-1)", "data", "bomb",
    ),
    Mutation(
        "reading: a cut Zstandard file is taken for a whole one", "data/unpacking.py",
        "    if not frame.eof:\n        raise EOFError\n", "", "data", "damaged_compressed",
    ),
    Mutation(
        "reading: a call may name any tool", "data/conversations.py",
        "if call.name not in names:", "if False:", "data", "test_each_malformed",
    ),
    Mutation(
        "reading: true is a weight", "data/conversations.py",
        "if type(weight) is not int or weight not in (0, 1):", "if weight not in (0, 1):",
        "data", "test_each_malformed",
    ),
    Mutation(
        "reading: tools of other rows fill a Parquet row (law 28)", "data/tables.py",
        "            cells[name] = _without_absent(cells[name])\n", "            pass\n",
        "data", "test_tools_of_different",
    ),
    Mutation(
        "reading: README.md may name files outside its folder", "data/folders.py",
        'or pattern.startswith("/") or ".." in pattern', "", "data", "files_of_a_folder",
    ),
    Mutation(
        "converting: what is written is not read back", "data/converting.py",
        "    _check_same(example, row, shape)\n    beside", "    beside", "data", "refused_by_name",
    ),
    Mutation(
        "audit: a label is evidence for itself (ridge)", "data/plain.py",
        "(predicted - leverage * wanted) / (1 - leverage)", "predicted", "data", "no_evidence_for_itself",
    ),
    Mutation(
        "audit: a label is evidence for itself (naive Bayes)", "data/plain.py",
        "counts.indices]).ravel() - counts.data", "counts.indices]).ravel()", "data", "no_evidence_for_itself",
    ),
    Mutation(
        "audit: runs go on from one text into the next", "data/sketches.py",
        "within[ends[:-1] - place] = False", "pass", "data", "test_signatures_are_equal",
    ),
    Mutation(
        "audit: texts that differ in numbers only are near duplicates", "data/near.py",
        'if _DIGITS.sub("0", ones[place]) == _DIGITS.sub("0", others[place]):', "if False:",
        "data", "numbers_only or counts_letters",
    ),
    Mutation(
        "audit: an exact leak is a near leak too", "data/near.py",
        "rows = rows[~np.isin(inputs[rows], stack.facts(earlier).inputs)]", "pass", "data", "is_a_leak_once",
    ),
    Mutation(
        "audit: lines are found one too far", "data/files.py",
        "place = line - piece.line", "place = line - piece.line + 1", "data", "read_again_by_its_line or many_jobs",
    ),
    Mutation(
        "audit: bytes decide that a row fits although they do not", "data/audit.py",
        'stack.column("sizes") > ruler.context_tokens - TEMPLATE_BYTES',
        'stack.column("sizes") > 2 * ruler.context_tokens + TEMPLATE_BYTES', "data", "whose_bytes_leave_it_open",
    ),
    Mutation(
        "audit: check digits of IBANs are not looked at", "data/private.py",
        "% 97 == 1:", "% 97 >= 0:", "data", "private_values_are_told",
    ),
    Mutation(
        "audit: check digits of cards are not looked at", "data/private.py",
        "if not (_ISSUERS.fullmatch(digits) and luhn(digits)):", "if not _ISSUERS.fullmatch(digits):",
        "data", "private_values_are_told or private_data",
    ),
    Mutation(
        "audit: a date is a phone number", "data/private.py",
        "or _DATE.match(number) ", "", "data", "private_values_are_told",
    ),
    Mutation(
        "audit: signs that steer the terminal are printed", "console.py",
        "sign if sign.isprintable() else", "sign if True else", "test_audit_shown.py", "80_columns",
    ),
    Mutation(
        "with AMX no product is cut for all cores (speed)", "models/fused.py",
        "one_core = outputs <= _FEW_OUTPUTS and", "one_core = False and", "models/test_fused_laws.py", "all_cores",
    ),
    Mutation(
        "a product in blocks adds the first rows to every block (law 3)", "models/fused.py",
        "else added[block], x", "else added[: len(x[block])], x", "models/test_fused_laws.py", "all_cores",
    ),
    Mutation(
        "blocks: an adapter's scale is left out (law 3)", "models/blocks.py",
        "self._scale[ranks] = adapter[2]", "self._scale[ranks] = 1.0", "models/test_blocks_laws.py", "test_law_3",
    ),
    Mutation(
        "blocks: a changed adapter is not seen (law 3)", "models/blocks.py",
        "if versions == self._versions:", "if self._versions:", "models/test_blocks_laws.py", "changed_adapter",
    ),
    Mutation(
        "blocks: the bias of queries is lost (law 3)", "models/blocks.py",
        "if any(b is not None for b in biases) else None", "if False else None",
        "models/test_blocks_laws.py", "test_law_3",
    ),
    Mutation(
        "blocks: the window is forgotten (law 34)", "models/structure.py",
        '"MistralDecoderLayer": "config.sliding_window"', '"MistralDecoderLayer": ""',
        "models/test_blocks_laws.py", "test_law_3 or test_law_6",
    ),
    Mutation(
        "blocks: weights are not given back (law 8)", "models/blocks.py",
        "base.weight.data = base.weight.data.clone(memory_format=torch.contiguous_format)", "pass",
        "models/test_blocks_laws.py", "test_law_8",
    ),
    Mutation(
        "a row's ancestors are its neighbour's (law 30)", "models/rows.py",
        "upper = all_above.index_select(1, band.above)", "upper = all_above.index_select(1, band.above.roll(1))",
        "training/test_sharing_laws.py", "test_law_3_and_30",
    ),
    Mutation(
        "a block of a long segment does not see the blocks before it (law 3)", "models/rows.py",
        "seen, inside = slice(before + start)", "seen, inside = slice(before)",
        "models/test_attention_laws.py", "packed_logits_equal",
    ),
    Mutation(
        "the gradient of padding is counted (law 16)", "models/kernels.py",
        "torch.where(filled[:, None], tokens[slots], 0)", "tokens[slots]",
        "training/test_sharing_laws.py", "test_law_3",
    ),
    Mutation(
        "rotations are undone the wrong way round (law 3)", "models/kernels.py",
        "turned = _rotated_back(turned, cos, sin)", "turned = _rotated(turned, cos, sin)",
        "models/test_blocks_laws.py", "test_law_3",
    ),
    Mutation(
        "the last trained token is cut off (law 1)", "training/batches.py",
        "ends = [_last_needed(row) + 1 for row in rows]", "ends = [_last_needed(row) for row in rows]",
        "training/test_sharing_laws.py", "test_law_31",
    ),
    Mutation(
        "the head's own gradient is that of one chunk (law 3)", "training/loss.py",
        "to_weight += logits.t() @ hidden[part]", "to_weight = logits.t() @ hidden[part]",
        "training/test_vocabulary_laws.py", "test_law_3",
    ),
    Mutation(
        "the loss of a frozen head forgets the wanted token (law 5)", "training/loss.py",
        "slope[part] = weight[target[part]] - logits @ weight", "slope[part] = -(logits @ weight)",
        "training/test_vocabulary_laws.py", "test_law_3",
    ),
    Mutation(
        "a training takes its share although the budget is spent", "pipeline/running.py",
        "    return _seconds_left(work, plan, name) - float(plan[\"budget\"][name] - planned)", "    return planned",
        "pipeline/test_budget_kept.py", "test_a_training",
    ),
    Mutation(
        "tied embeddings are counted twice", "models/architecture.py",
        "(1 if self.is_tied else 2)", "2", "models", "test_the_parameter_count",
    ),
    Mutation(
        "norms in float32 are counted as bfloat16", "plan/needs.py",
        "exact = 2 ", "exact = 1 ", "plan", "test_what_a_pass_keeps",
    ),
    Mutation(
        "a shared beginning's attention is counted for its own rows only", "plan/needs.py",
        "own = self.rows * _kept_weights(self.length, self.prefix)", "own = self.rows * _kept_weights(self.length, 0)",
        "plan", "test_what_a_pass_keeps",
    ),
    Mutation(
        "advice passes what cannot fit", "plan/advice.py",
        "if memory.peak <= means.free_bytes:", "if True:", "plan", "test_the_first_way_that_fits",
    ),
    Mutation(
        "a licence that forbids the use passes", "models/catalogue.py",
        'wish.use != "commercial" or entry.licence.is_commercial', "True", "models", "test_a_wish",
    ),
    Mutation(
        "rates are measured each time", "models/rates.py",
        "if not again and (kept := _kept(path)) is not None:", "if (kept := None) is not None:",
        "models", "test_rates_are_measured_once",
    ),
    Mutation(
        "typing errors hit words that carry the answer", "evaluation/perturbing.py",
        "if _letters(word) >= _LEAST_LETTERS and not is_protected(word, kept)", "if _letters(word) >= _LEAST_LETTERS",
        "evaluation/test_perturbing.py", "test_words_that_carry",
    ),
    Mutation(
        "spaces within a copied name are doubled", "evaluation/perturbing.py",
        "if all(word and is_protected(word, kept) for word in between)", "if False",
        "evaluation/test_perturbing.py", "test_the_space_within",
    ),
    Mutation(
        "alterations depend on the rows asked before", "evaluation/perturbing.py",
        'chance = random.Random(f"{perturbation.name}/{seed}/{example.id}")', "chance = random",
        "evaluation/test_perturbing.py", "test_alterations_depend",
    ),
    Mutation(
        "an alteration that helps is shown as one that hurts", "pipeline/probing.py",
        "pair = compare(after, before,", "pair = compare(before, after,",
        "pipeline/test_probing.py", "test_a_loss_under",
    ),
    Mutation(
        "losses of rows come in the order of their lengths", "training/loss.py",
        "return [found[row.id] for row in rows]", "return list(found.values())",
        "evaluation/test_probes.py", "test_surprise",
    ),
    Mutation(
        "the end token counts as knowledge of the world", "evaluation/local.py",
        "if not with_end:", "if with_end:", "evaluation/test_probes.py", "test_surprise",
    ),
    Mutation(
        "short choices win", "evaluation/forgetting.py",
        "means = [nats / tokens for", "means = [nats for", "evaluation/test_probes.py", "test_choices_are_weighed",
    ),
    Mutation(
        "the finalist of the curve is chosen on test (law 7)", "evaluation/curve.py",
        'float(record["settings"]["validation_score"])', 'float(record["score"])',
        "evaluation/test_probes.py", "test_law_7",
    ),
    Mutation(
        "the sets of the curve are drawn anew for each size", "evaluation/curve.py",
        "return stratified(train, size, seed, kind)", "return stratified(train, size, seed + size, kind)",
        "evaluation/test_probes.py", "test_the_sets",
    ),
    Mutation(
        "a training that was cut short is a point of the curve", "pipeline/curve_drawing.py",
        'if attempt.ended == "time":', "if False:", "pipeline/test_probing.py", "test_a_training_that",
    ),
    Mutation(
        "a probe is begun without the time it needs", "pipeline/probing.py",
        "clock.left >= _BEYOND_PLAN * seconds[name]", "clock.left >= 0",
        "pipeline/test_probing.py", "test_a_probe_is_begun",
    ),
    Mutation(
        "what one probe takes is given to the next one too", "plan/probing.py",
        "            left_seconds -= seconds[name]\n", "", "plan/test_probes_planned.py", "test_probes_are_afforded",
    ),
    Mutation(
        "the last number of a cut text is its answer (law 51)", "evaluation/metrics/finals.py",
        "    if not whole:\n        return None\n", "", "evaluation", "test_law_51",
    ),
    Mutation(
        "answers of weight 0 are learnt (law 11)", "evaluation/prompts.py",
        'if m.role == "assistant" and m.weight != 0]', 'if m.role == "assistant"]', "rendering", "test_law_11",
    ),
    Mutation(
        "only the last turn is trained whatever is asked (law 11)", "evaluation/prompts.py",
        'learnt[-1:] if turns == "last" else learnt', "learnt[-1:]", "rendering", "test_law_11",
    ),
    Mutation(
        "earlier turns are trained behind prompts that are never served (law 24)", "rendering/renderer.py",
        "if rows and row.ids[: len(rows[-1].ids)] == rows[-1].ids:", "if rows:", "rendering", "template_that_forgets",
    ),
    Mutation(
        "control strings in tool calls are control tokens (law 26)", "rendering/renderer.py",
        "return [_changed(m, hide) for m in messages],", "return messages,", "rendering", "test_law_26",
    ),
    Mutation(
        "calls are compared in the order they were written", "evaluation/metrics/calls.py",
        "        left.remove(match)\n    return not left", "        left.remove(match)\n    return given == wanted",
        "evaluation", "parallel_calls",
    ),
    Mutation(
        "a failed call is scored as if it were an answer (law 51)", "evaluation/metrics/metric.py",
        "if error is None and answer.text.strip():", "if answer.text.strip():", "evaluation", "gets_a_score",
    ),
    Mutation(
        "the user's code runs without being allowed", "evaluation/metrics/own.py",
        "    if not allow_code:\n", "    if False:\n", "evaluation", "nothing_is_imported",
    ),
    Mutation(
        "a score outside 0 to 1 passes", "evaluation/metrics/own.py",
        "and 0 <= number <= 1 else None", "else None", "evaluation", "no_number_in_0_to_1",
    ),
    Mutation(
        "the cheapest of arms that get nothing right is recommended", "decision/rule.py",
        "if best is None or best.mean == 0:", "if best is None:",
        "decision", "test_arms_that_get_nothing_right",
    ),
    Mutation(
        "a run without time for every prompt is refused", "plan/budget.py",
        "while least > left and len(needed) > 1:", "while False:",
        "plan", "test_a_budget_that_cannot_ask_every_prompt",
    ),
    Mutation(
        "test rows make no room for the first training", "plan/budget.py",
        "for share in _TEST_ROWS_KEPT if course is not None else ():", "for share in ():",
        "plan", "test_test_rows_make_room_for_a_first_training",
    ),
    Mutation(
        "a row of several sees what an earlier row left behind", "models/kernels.py",
        "(places > ends[:, None])[:, None, None]", "(places > ends.max())[None, None, None]",
        "models", "test_law_6_rows_side_by_side",
    ),
    Mutation(
        "shared keys are weighed without the own ones", "models/kernels.py",
        "share = 1 / (own.sum(-1, keepdim=True) + shared.sum(-1, keepdim=True))\n    seen",
        "share = 1 / shared.sum(-1, keepdim=True)\n    seen",
        "models", "test_law_6_rows_side_by_side",
    ),
    Mutation(
        "a lone token sees one key too few", "models/single.py",
        "values[:, None, :length]", "values[:, None, :length].roll(1, 2)",
        "models", "test_law_6_the_logits_of_a_compiled_token_are_exact",
    ),
    Mutation(
        "hosted training: a job whose reply was lost is begun again", "inference/hosted_jobs.py",
        "if tried and (known := self.find(training_file)) is not None:",
        "if tried and (known := None) is not None:",
        "evaluation/test_hosted_training.py", "reply_was_lost",
    ),
    Mutation(
        "hosted training: the request is not marked before it is sent", "evaluation/hosted_tuned.py",
        'write_json(path, record | {"tried": True})  #', "write_json(path, record)  #",
        "evaluation/test_hosted_training.py", "killed",
    ),
    Mutation(
        "hosted training: trained behind another prompt than asked", "evaluation/hosted_tuned.py",
        '    return {"messages": plain}', '    return {"messages": [m for m in plain if m["role"] != "system"]}',
        "evaluation/test_hosted_training.py", "test_law_2",
    ),
    Mutation(
        "distilled: requests that are held out are taught", "data/unlabelled.py",
        "        if text in hidden:", "        if False:", "data/test_unlabelled.py", "test_what_is_left_out",
    ),
    Mutation(
        "distilled: requests that are nearly held out are taught", "data/unlabelled.py",
        "if number not in near)", "if True)", "pipeline/test_distilled.py", "nothing_held_out",
    ),
    Mutation(
        "distilled: short requests are not compared", "data/unlabelled.py",
        "agreement[np.minimum(sizes, len(text)) < SHORTEST] = 1.0", "pass", "data/test_unlabelled.py", "test_law_50",
    ),
    Mutation(
        "distilled: the teacher is chosen on test (law 7)", "pipeline/teaching.py",
        '    known = record["settings"].get("validation_score")', '    known = record["score"]',
        "pipeline/test_distilled.py", "test_law_7",
    ),
    Mutation(
        "distilled: answers that were cut off are taught", "evaluation/distilled.py",
        'if answer.finish_reason != "stop":', "if False:", "pipeline/test_distilled.py", "nothing_held_out",
    ),
    Mutation(
        "distilled: the teacher costs nothing", "pipeline/teaching.py",
        '"usd": None if None in paid else sum(usd for usd in paid if usd is not None),', '"usd": 0.0,',
        "pipeline/test_distilled.py", "nothing_held_out",
    ),
    Mutation(
        "hosted training: naming the arm is permission to pay", "pipeline/running.py",
        "if arm.taught_there and arm.provider and task.providers[arm.provider].fine_tune is None:", "if False:",
        "pipeline/test_arms_of_a_run.py", "test_a_training_that_is_paid_for",
    ),
    Mutation(
        "objects are learnt in an order that they cannot be written in", "pipeline/trainable.py",
        'return _of_one_spelling(found, task.prompt.json_schema) if splits.kind == "extraction" else found',
        "return replace(found, schema=_of_one_spelling(found, task.prompt.json_schema).schema)",
        "pipeline", "test_objects_that_are_learnt",
    ),
    Mutation(
        "an object that knows no end is never closed", "inference/grammars.py",
        "if self.closing else None", "if False else None", "evaluation", "test_objects_that_would_never_end",
    ),
    Mutation(
        "brackets within a text are taken for its end", "inference/grammars.py",
        """(b'"', b"]", b"}")""", """(b"]", b"}", b'"')""", "evaluation", "test_objects_that_would_never_end",
    ),
    Mutation(
        "an arm is served without the schema it was judged with", "pipeline/finished.py",
        ', schema=record.get("json_schema"))', ")", "kinds", "extraction",
    ),
    Mutation(
        "a judge that does not agree with people makes the verdict", "pipeline/judging.py",
        "    if not trust:\n", "    if False:\n", "pipeline", "test_a_judge_that_does_not_agree",
    ),
    Mutation(
        "a judge's nonsense is scored as a tie", "pipeline/judging.py",
        "None if found.winner is None else _VALUES[found.winner]", "_VALUES[found.winner or 0]",
        "pipeline", "test_a_judge_that_does_not_agree",
    ),
    Mutation(
        "judging costs nothing", "pipeline/judging.py",
        "None if paid is None else paid + (usd or 0.0)", "paid", "pipeline", "test_a_judge_that_agrees",
    ),
    Mutation(
        "calibration is made up for constrained answers", "evaluation/metrics/calibration.py",
        'if decoding != "scored":', "if False:", "evaluation", "test_without_probabilities_of_labels",
    ),
    Mutation(
        "failed rows count as sure", "evaluation/metrics/calibration.py",
        "for answer in answers if answer.error is None]", "for answer in answers]",
        "evaluation", "test_calibration_of_preferences",
    ),
    Mutation(
        "prompts that are to be alone are asked side by side", "evaluation/local.py",
        "self._one_at_a_time(prompts, scoring, on_done) if self._alone else", "",
        "evaluation", "test_law_35_alone_no_answer",
    ),
    Mutation(
        "what an earlier prompt left behind is used for one that is to be alone", "evaluation/local.py",
        "            self.engine().forget()\n", "", "evaluation", "test_law_35_alone_no_answer",
    ),
    Mutation(
        "pairs that are to be alone are weighed side by side", "evaluation/local.py",
        "[[example] for example in examples] if self._alone else [examples]", "[examples]",
        "evaluation", "test_law_35_alone_no_preference",
    ),
    Mutation(
        "search: what was won is told by the rows that chose it", "pipeline/searching.py",
        "one.outcomes[-1].scores[count:])", "one.outcomes[-1].scores[:count])",
        "pipeline/test_searching.py", "",
    ),
    Mutation(
        "search: what lost on rows that did not choose it is used", "pipeline/searching.py",
        "if pair.difference <= 0:", "if pair.difference <= -2:",
        "pipeline/test_searching.py", "",
    ),
    Mutation(
        "search: what short trainings do not show is used", "pipeline/searching.py",
        "if low <= 0 and share < _SHORT:", "if low <= 0 and share < 0:",
        "pipeline/test_searching.py", "not_shown",
    ),
    Mutation(
        "search: trials are judged on test rows", "pipeline/trying.py",
        "whole, judged = work.bench(0), (*trial.choosing, *trial.judging)",
        "whole, judged = work.bench(0), read_splits(track.folder).test[:15] * (1 + bool(trial.judging))",
        "pipeline/test_searching.py", "law_7",
    ),
    Mutation(
        "search: what was found never reaches the plan", "pipeline/settling.py",
        'values = found.get("settings", {}) if tried is None else tried', "values = {} if tried is None else tried",
        "pipeline/test_searching.py", "",
    ),
    Mutation(
        "search: rows of one group choose and judge", "pipeline/searching.py",
        "sides = [order[row.group or row.id] % 2 for row in rows]", "sides = [n % 2 for n in range(len(rows))]",
        "pipeline/test_searching.py", "one_group",
    ),
    Mutation(
        "search: what trials really take is not looked at", "pipeline/searching.py",
        "* max(1.0, self.taken / self.predicted if self.predicted else 1.0)", "",
        "pipeline/test_searching.py", "longer_than_predicted",
    ),
    Mutation(
        "search: the time of what failed is free", "pipeline/trying.py",
        "            self.spent += time.perf_counter() - start\n", "",
        "pipeline/test_searching.py", "diverges",
    ),
    Mutation(
        "search: a stopped one begins anew", "pipeline/searching.py",
        "if kept.get(\"settings\") != dict(one.settings):", "if True:",
        "pipeline/test_searching.py", "stopped",
    ),
    Mutation(
        "search: trainings that take more than the time allows are planned", "plan/searching.py",
        "longest = min(whole_rows, int((room - judged * answering) / a_row))",
        "longest = min(whole_rows, int(allowance / a_row))",
        "plan/test_search_plan.py", "",
    ),
    Mutation(
        "race: the better half is dropped", "pipeline/racing.py",
        "kept = ranked[: (len(ranked) + 1) // 2]", "kept = ranked[len(ranked) // 2 :]",
        "pipeline/test_racing.py", "",
    ),
    Mutation(
        "race: of equal scores the first wins, whatever was learnt", "pipeline/racing.py",
        "(-done[c.id].score, done[c.id].loss)", "(-done[c.id].score, 0.0)",
        "pipeline/test_racing.py", "equal_scores",
    ),
    Mutation(
        "race: candidates are told of test rows", "pipeline/trying.py",
        "trainable(read_splits(folder), task), test=())", "trainable(read_splits(folder), task))",
        "pipeline/test_racing.py", "",
    ),
    Mutation(
        "race: as long as a whole training", "plan/racing.py",
        "RACE_SHARE = 0.5 ", "RACE_SHARE = 1.5 ",
        "pipeline/test_racing.py", "",
    ),
    Mutation(
        "what a plan leaves out stays out", "pipeline/second_look.py",
        "    if not isinstance(found, Trained):", "    if True:",
        "pipeline/test_budget_kept.py", "test_a_training_that_the_plan_left_out",
    ),
    Mutation(
        "a second look takes time that is gone", "pipeline/second_look.py",
        "left = total - spent - ", "left = total - ",
        "pipeline/test_budget_kept.py", "test_a_training_that_the_plan_left_out",
    ),
]  # fmt: skip


def outcome(mutation: Mutation, source: Path) -> str:
    """`caught`, or what went wrong."""
    path = source / "tuneworth" / mutation.file
    content = path.read_text("utf-8")
    if content.count(mutation.old) != 1:
        return f"STALE: its text is there {content.count(mutation.old)} times"
    path.write_text(content.replace(mutation.old, mutation.new), "utf-8")
    try:
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-k", mutation.law]
        environment = os.environ | {"PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [*command, str(ROOT / "tests" / mutation.suite)],
            cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    finally:
        path.write_text(content, "utf-8")
    if done.returncode == 1:
        failed = next((line for line in done.stdout.splitlines() if line.startswith("FAILED")), "FAILED ?")
        return "caught by " + failed.split("::")[-1].split(" - ")[0]
    return "SURVIVED" if done.returncode == 0 else f"BROKEN: pytest ended with {done.returncode}\n{done.stdout[-800:]}"


def main(words: list[str]) -> int:
    """Run all mutations whose names hold one of `words` (or all) and print a line each; 1 if any was not caught."""
    chosen = [m for m in MUTATIONS if not words or any(word in m.name for word in words)]
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "src"
        shutil.copytree(ROOT / "src", source, ignore=shutil.ignore_patterns("__pycache__"))
        for mutation in chosen:
            start = time.perf_counter()
            found = outcome(mutation, source)
            bad += not found.startswith("caught")
            print(f"{time.perf_counter() - start:5.1f}s  {mutation.name}: {found}", flush=True)
    print(f"{len(chosen) - bad} of {len(chosen)} bugs were caught")
    return bool(bad)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
