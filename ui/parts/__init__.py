"""What several tabs are made of: components, sentences and prompts to try."""
