"""Other harnesses judge a Forge run: lm-eval and inspect-ai, each an extra.

run_model.py       a run's model as both need it: log-likelihoods, and text up to a stop string
lm_eval.py         the command: lm-eval's own, with the model `forge`
lm_eval_model.py   lm-eval's requests, answered
inspect_ai.py      inspect-ai's provider `forge`
one_batch.py       the thread that owns a model, and answers what waits as one batch
"""
