"""Tables and figures of papers, and of one's own, each made by one command."""
