"""The description of the API: made from the views, given out as OpenAPI, and shown as a page."""
