"""What a reader is shown of a report, whoever shows it. Pure, and of text alone; knows neither terminal nor page."""
