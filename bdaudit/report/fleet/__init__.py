"""Many reports as one: read, put in order, held against the error rate of all of them together, and written as a page, JSON and SARIF."""
