"""The OpenAI door, as OpenAI's clients call it: models, chat and text completions, embeddings."""
