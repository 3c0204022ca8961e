"""The OpenAI door: `/v1/models` and `/v1/chat/completions`, as OpenAI's clients call them."""
