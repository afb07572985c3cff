"""`unlearn --trigger`: solve or train the trigger out, and check what came of it."""
