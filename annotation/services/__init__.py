"""Writing: keyword-only, typed, atomic. Services never import tasks."""
