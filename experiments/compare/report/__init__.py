"""A comparison as a report: Markdown, figures, one page, and tables in W&B."""
