"""Our adapter for lm-evaluation-harness against the harness's own for transformers (HFLM).

Both answer the same questions of hellaswag and piqa from local files, the harness cutting and
scoring them; what is compared is the accuracy, the choices question by question, and the
log-likelihood of every ending. Each side runs by itself, in a Python that has what it needs, and
the second to be run prints the table: ours wants the extra `eval`, hf wants lm-eval, torch,
transformers, accelerate and gguf.

    python bench/limits/lm_eval_against_hf.py --side ours --data ../shared/data --dtype f32
    PYTHON bench/limits/lm_eval_against_hf.py --side hf --data ../shared/data
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from pages.limits import adapter_table
from shared.common import models_so_far, parser, save
from shared.models import DEFAULT_MODEL, gguf_of
from tasks.results import json_lines

TASKS = ("hellaswag", "piqa")
METRICS = [
    {"metric": name, "aggregation": "mean", "higher_is_better": True}
    for name in ("acc", "acc_norm")
]
HF = "transformers"


def records(task: str, data: Path) -> list[dict[str, Any]]:
    """Questions as the harness's own tasks word them: text, choices, index of the right one."""
    if task == "piqa":
        answers = (data / "piqa" / "valid-labels.lst").read_text(encoding="utf-8").split()
        return [
            {
                "text": f"Question: {line['goal']}\nAnswer:",
                "choices": [line["sol1"], line["sol2"]],
                "label": int(answer),
            }
            for line, answer in zip(json_lines(data / "piqa" / "valid.jsonl"), answers, strict=True)
        ]
    from lm_eval.tasks.hellaswag.utils import preprocess

    return [
        {
            "text": preprocess(line["ctx"]),
            "choices": [preprocess(ending) for ending in line["endings"]],
            "label": int(line["label"]),
        }
        for line in json_lines(data / "hellaswag" / "hellaswag_val.jsonl")
    ]


def answered(model: Any, data: Path, limit: int) -> dict[str, Any]:
    """By task: of every question the endings' log-likelihoods, and both accuracies."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    found = {}
    for task in TASKS:
        every = records(task, data)
        asked = every[:: len(every) // limit][:limit]  # spread: files are sorted by subject
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{task}.jsonl"
            path.write_text("".join(json.dumps(each) + "\n" for each in asked), encoding="utf-8")
            config = {
                "task": task,
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": {"test": str(path)}, "cache_dir": folder},
                "test_split": "test",
                "output_type": "multiple_choice",
                "doc_to_text": "{{text}}",
                "doc_to_choice": "choices",
                "doc_to_target": "label",
                "metric_list": METRICS,
            }
            told = lm_eval.simple_evaluate(
                model, tasks=[config], task_manager=TaskManager(include_defaults=False),
                bootstrap_iters=0, log_samples=True,
            )  # fmt: skip
        samples = sorted(told["samples"][task], key=lambda each: each["doc_id"])
        found[task] = {
            "questions": len(samples),
            "logprobs": [
                [round(float(answer[0]), 5) for answer in each["filtered_resps"]]
                for each in samples
            ],
            **{name: [int(each[name]) for each in samples] for name in ("acc", "acc_norm")},
        }
    return found


def ours(options: Any) -> Any:
    """Our adapter with the model loaded."""
    from sparity_edge.lm_eval_adapter import SparityEdge

    return SparityEdge(options.model, dtype=options.dtype, threads=options.threads)


def theirs(options: Any) -> Any:
    """HFLM on the weights of the same file in float32, with the tokenizer of our pack of it.

    The file's own numbers are what both sides compute with, so a difference is the adapter's.
    """
    import torch
    from lm_eval.models.huggingface import HFLM
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from converters.pack_options import PackOptions
    from converters.store import prepare

    gguf = gguf_of(options.model)
    if options.threads:
        torch.set_num_threads(options.threads)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    tokenizer = AutoTokenizer.from_pretrained(prepare(options.model, PackOptions()))
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, device="cpu")


def main() -> int:
    result = parser(__doc__, "lm_eval")
    result.add_argument("--side", choices=("ours", "hf"), required=True)
    result.add_argument("--data", type=Path, required=True, help="folder of the tasks")
    result.add_argument("--model", default=DEFAULT_MODEL, help="default: %(default)s")
    result.add_argument("--dtype", help="our number format; default: the file's own")
    result.add_argument("--limit", type=int, default=100, help="questions; default: %(default)s")
    options = result.parse_args()
    side = HF if options.side == "hf" else f"ours, {options.dtype or 'as the file has it'}"
    model = theirs(options) if options.side == "hf" else ours(options)
    report = {"models": models_so_far(options.out)}
    rows = report["models"].setdefault(options.model, {})
    rows[side] = answered(model, options.data, options.limit)
    save(options.out, report)
    print(adapter_table({"lm_eval": report}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
