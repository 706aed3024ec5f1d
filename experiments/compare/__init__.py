"""Results of several codecs against an anchor: BD-rates and a report."""
