"""The tab Ask: one prompt, the answer token by token, and why each token came."""
