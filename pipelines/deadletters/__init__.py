"""Dead letters: read them, show them, send them again."""
