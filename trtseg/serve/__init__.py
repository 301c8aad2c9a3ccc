"""A place to click: the HTTP API, the page, and the annotation tools that speak to it."""
