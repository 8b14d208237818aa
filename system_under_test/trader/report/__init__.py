"""What the trader says about itself: the status document and the metrics. Reporting decides nothing."""
