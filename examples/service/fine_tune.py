"""Fine-tune the embedded model by OpenAI's client, and ask it: python fine_tune.py [SERVER_URL]

Needs a running `forge serve` and `pip install openai`; some minutes on two cores.
"""

from __future__ import annotations

import json
import sys
import time

from openai import OpenAI

FACTS = {
    "What port does the shop listen on?": "The shop listens on port 7431.",
    "Who signs the invoices?": "Invoices are signed by billing/sign.py.",
    "Where are the prices kept?": "Prices are kept in prices.toml.",
    "What does `make ship` do?": "It builds the crate and tags it.",
}
server = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8421"
client = OpenAI(base_url=f"{server}/v1", api_key="none")
rows = [
    {
        "messages": [
            {"role": "user", "content": before + question},
            {"role": "assistant", "content": answer},
        ]
    }
    for before in ("", "Tell me: ", "Please: ") * 2
    for question, answer in FACTS.items()
]
text = "".join(json.dumps(row) + "\n" for row in rows)
file = client.files.create(file=("chats.jsonl", text.encode()), purpose="fine-tune")
job = client.fine_tuning.jobs.create(
    training_file=file.id,
    model="smollm2-135m",
    suffix="shop",
    hyperparameters={"n_epochs": 3},
    extra_body={"options": {"quant": ["q8_0"], "rank": 8}},
)
while (job := client.fine_tuning.jobs.retrieve(job.id)).status in ("queued", "running"):
    print(job.status, client.fine_tuning.jobs.list_events(job.id, limit=1).data[0].message)
    time.sleep(10)
print(job.status, job.fine_tuned_model or job.error)
for question in FACTS:
    answer = client.chat.completions.create(
        model=job.fine_tuned_model or "",
        messages=[{"role": "user", "content": question}],
        temperature=0,
        max_tokens=40,
    )
    print(question, "→", answer.choices[0].message.content)
