"""Forms of the annotation pages."""
