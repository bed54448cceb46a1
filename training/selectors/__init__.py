"""Reading: joins and aggregates, no writes."""
