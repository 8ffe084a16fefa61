"""The public path of quality/lm_eval_adapter.py, which is the adapter itself.

`python -m sparity_edge.lm_eval_adapter` is the harness's command line with our model registered.
Knows nothing of how a task is answered.
"""

from sparity_edge.quality.lm_eval_adapter import SparityEdge, main, sampling_params

__all__ = ["SparityEdge", "main", "sampling_params"]

if __name__ == "__main__":
    main()
