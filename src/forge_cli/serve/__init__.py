"""The conductor: fine-tuning jobs over HTTP, from a durable queue, over the ordinary pipeline."""
