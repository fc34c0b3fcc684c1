"""llama.cpp through llama-cpp-python, one prompt after the other; it keeps what a prompt shares with the one before.

Settings: gguf (the file).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from llama_cpp import Llama
from measured import Job


def main() -> None:
    """Run the job named on the command line."""
    job = Job(sys.argv[1])
    longest = max(len(prompt) + limit for prompt, limit in zip(job.prompts, job.limits, strict=True))
    model = Llama(
        job.settings["gguf"], n_ctx=longest + 64, n_threads=job.threads, n_threads_batch=job.threads, verbose=False
    )

    def answer(prompts: Sequence[list[int]], limits: Sequence[int]) -> list[list[int]]:
        found = []
        for prompt, limit in zip(prompts, limits, strict=True):
            written: list[int] = []
            for token in model.generate(prompt, temp=0.0, repeat_penalty=1.0):
                if token == job.end_id:
                    break
                written.append(token)
                if len(written) == limit:
                    break
            found.append(written)
        return found

    job.measure(answer)


main()
